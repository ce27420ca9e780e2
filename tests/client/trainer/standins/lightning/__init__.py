"""A stand-in for Lightning."""
