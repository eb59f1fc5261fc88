"""Augmentors: what makes a second, harder view of a batch. One file each."""
