"""Sockets: listening, the fronts that speak HTTP, the log, signals and the way down."""
