"""Evaluation of a run: accuracy matrix, predictions and metrics. Imports nothing."""
