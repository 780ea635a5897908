"""Checkpoints to an accuracy matrix, predictions and metrics. Nothing is imported here."""
