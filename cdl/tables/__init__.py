"""Finished runs to tables, and ours beside the published numbers. No torch, no study."""
