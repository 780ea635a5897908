"""Datasets by name, packed pixels, class order and tasks, seeded views. Knows no model.

Nothing is imported here, so that preparing a dataset does not wait for torch.
"""
