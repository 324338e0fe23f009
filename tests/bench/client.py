"""A small HTTP client on one blocking socket. Requests can be pipelined; it does nothing on its own."""

import json
import socket
from typing import Any, NamedTuple, Self

from tests.bench.processes import HOST
from tests.bench.report import check


class Answer(NamedTuple):
    status: int
    body: bytes


class Client:
    """One connection to a server. `timeout`: seconds for a read."""

    def __init__(self, port: int, timeout: float = 120) -> None:
        self._socket = socket.create_connection((HOST, port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = port
        self._kept = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def request(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
        """Returns the bytes of a request, for `send`."""
        return (
            f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{self._port}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    def send(self, requests: bytes) -> None:
        self._socket.sendall(requests)

    def receive(self) -> Answer:
        """Returns the next answer. It must have a length, as all answers but a 204 have."""
        while (end := self._kept.find(b"\r\n\r\n")) < 0:
            self._kept += self._more()
        head = self._kept[:end].lower()
        status = int(head[9:12])
        at = head.find(b"\r\ncontent-length:")
        size = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        pieces, have = [self._kept[end + 4 :]], len(self._kept) - end - 4
        while have < size:
            pieces.append(self._more())
            have += len(pieces[-1])
        whole = b"".join(pieces)
        self._kept = whole[size:]
        return Answer(status, whole[:size])

    def _more(self) -> bytes:
        data = self._socket.recv(1 << 20)
        check(bool(data), "the server closed the connection")
        return data

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Answer:
        """Sends one request and returns its answer, which must be 2xx."""
        self.send(self.request(method, path, body, kind))
        answer = self.receive()
        check(200 <= answer.status < 300, f"{method} {path}: {answer.status} {answer.body[:300]!r}")
        return answer

    def json(self, method: str, path: str, given: object = None) -> Any:
        body = b"" if given is None else json.dumps(given).encode()
        return json.loads(self.ask(method, path, body).body or b"null")

    def stats(self) -> Any:
        return self.json("GET", "/stats")


def fill(client: Client, jobs: int, queue: str = "default", batch: int = 1000) -> tuple[int, int]:
    """Enqueues jobs with distinct payloads of 100 bytes. Returns the first and the last id."""
    first = last = 0
    for start in range(0, jobs, batch):
        lines = [
            b'{"type":"bench","queue":"%b","payload":"%098d"}' % (queue.encode(), number)
            for number in range(start, min(start + batch, jobs))
        ]
        answer = client.ask("POST", "/jobs/enqueue", b"\n".join(lines), "application/x-ndjson")
        first = first or int(answer.body.partition(b'"id":')[2].split(b",", 1)[0])
        last = int(answer.body.rpartition(b'"id":')[2].split(b",", 1)[0])
    return first, last


def lifecycle_script(payload_bytes: int = 100) -> str:
    """Returns enqueue, dequeue and conclude for the load generator, with the lease in the body, as a worker sends it."""
    payload = "x" * (payload_bytes - 2)
    return (
        f'POST /jobs/enqueue Content-Type: application/json\n{{"type":"bench","payload":"{payload}"}}\n%%\n'
        "POST /jobs/dequeue\n\n%%\n"
        'POST /jobs/{id}/conclude Content-Type: application/json\n{"lease":"{lease}"}\n'
    )
