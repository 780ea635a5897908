"""Basic services: files, devices, random numbers, errors; independent of models and studies."""
