"""Preparation of a run: teachers, autoencoders, generated sets, scores of augmentations."""
