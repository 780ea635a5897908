"""Frozen vision transformers: fetching, building, and the forward pass with injected prompts.

This file imports nothing, so that planning can import single modules without torch.
"""
