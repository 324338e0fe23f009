"""The API as operations on an engine, independent of the front that read the request."""
