"""Finished runs to tables, figures, a page and answers. No torch, no study."""
