"""A finished student as something to use: loaded, exported, asked. Nothing is imported here."""
