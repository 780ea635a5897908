"""Frozen vision transformers: fetching, building, forward pass with prompts.

This file imports nothing, so that planning can import single modules without torch.
"""
