"""Engines make the core awaitable, durable or shared. What stands above knows `engine.api` only."""
