"""Answers without an end: events, jobs as they come, queues that move."""
