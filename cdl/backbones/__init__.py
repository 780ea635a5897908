"""Any frozen ViT: fetched, built, run with what prompts inject. Nothing is imported here."""
