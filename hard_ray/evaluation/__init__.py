"""Accuracy, calibration and robustness of networks."""
