"""How long a client may take, in seconds, and how much it may send; the same for both fronts."""

# From the first byte of a request to the end of its head; and a connection's first request.
HEAD = 30.0
# From the end of the head to the end of the body.
BODY = 60.0
# Between two requests.
IDLE = 300.0
# Taking nothing of what is written to it.
WRITE = 30.0
# After a refusal: still reading what it sends, so that it reads the answer.
LINGER = 2.0
# Bytes of a request line and its headers.
MAX_HEAD = 65536
