"""Learners: backbone, prompts, head and distiller in one module. Imports nothing."""
