"""Readers: turn requests into records of the model, and check them against the limits of the settings."""
