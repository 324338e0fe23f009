"""How long a client may take, in seconds; the same for both fronts. All but the last are settings."""

from jobqueue.settings import Settings

# After a refusal: still reading what it sends, so that it reads the answer.
LINGER = 2.0


class Deadlines:
    """`head`: from the first byte of a request to the end of its head, and a connection's first request.
    `body`: from the end of the head to the end of the body. `idle`: between two requests. `write`: taking
    nothing of what is written to it."""

    def __init__(self, settings: Settings) -> None:
        self.head = settings.head_timeout / 1000
        self.body = settings.body_timeout / 1000
        self.idle = settings.idle_timeout / 1000
        self.write = settings.write_timeout / 1000
        self.by_state = {
            "first": self.head, "head": self.head, "body": self.body, "idle": self.idle,
            "write": self.write, "linger": LINGER, "answer": float("inf"),
        }  # fmt: skip
