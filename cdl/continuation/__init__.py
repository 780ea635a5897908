"""A finished run learns one more task. Nothing is imported here."""
