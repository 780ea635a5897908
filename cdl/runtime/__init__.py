"""Below everything: files, devices, randomness, errors. Knows no model, method or study."""
