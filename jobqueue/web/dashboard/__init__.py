"""The dashboard: what its pages need besides the calls of the API."""
