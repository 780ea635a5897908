"""A student in the browser. Nothing is imported here."""
