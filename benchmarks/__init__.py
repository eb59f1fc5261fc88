"""Measurements of speed: ratios, side by side in one process."""
