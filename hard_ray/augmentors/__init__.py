"""Augmentors, which make a second, harder view of a batch: one file each."""
