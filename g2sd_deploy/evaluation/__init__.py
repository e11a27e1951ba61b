"""Metrics of accuracy, calibration and robustness; pure functions of arrays."""
