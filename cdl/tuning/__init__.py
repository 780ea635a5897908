"""Trials of hyperparameters on validation images, and what they came to. No torch."""
