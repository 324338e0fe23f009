"""Storage: rows and their checksums, the writing thread, SQLite, the data directory."""
