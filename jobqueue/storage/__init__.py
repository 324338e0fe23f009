"""Storage: rows and their checksums, the writing thread, stores such as SQLite, the data directory."""
