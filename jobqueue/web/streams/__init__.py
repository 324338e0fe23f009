"""Streaming calls: events, jobs, live screens, export and import."""
