"""The structs of requests and responses, and the kinds of their fields."""
