"""HTTP/1.1 from accepted sockets to the operations."""
