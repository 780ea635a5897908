"""Backbone, prompts, head and distiller put together. Nothing is imported here."""
