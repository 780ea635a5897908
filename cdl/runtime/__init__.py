"""Basic services for all rooms: files, devices, random numbers, errors."""
