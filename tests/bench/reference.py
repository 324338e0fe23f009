"""A fixed workload that is counted beside the requests: how many instructions this build of Python takes for the same.

Builds of one version differ by 15 % and more: by their optimisation, by profile or not. What compiled modules spend is
mostly Python's own functions, so the parts call these in loops of C, and a few run in the interpreter. Texts of JSON
are a smaller part, as in a request. The requests divided by this workload are the same on two builds to about 2 %.
It must never change: the recorded figures would mean nothing.
"""

from collections import deque
from collections.abc import Iterable
from operator import attrgetter

import msgspec


class _Record(msgspec.Struct, gc=False):
    id: int
    queue: str
    payload: bytes
    lease: str | None = None


class _Counter:
    __slots__ = ("last", "sum")

    def __init__(self, last: int, total: int) -> None:
        self.last = last
        self.sum = total

    def step(self, number: int) -> int:
        self.last = number
        return self.sum


def work(turns: int) -> None:
    _fields(turns)
    _dicts(turns)
    _json(turns // 4)
    _texts(turns)
    _objects(turns)


def _drain(values: Iterable[object]) -> None:
    deque(values, 0)


def _fields(turns: int) -> None:
    records = [_Record(number, "q", b"x") for number in range(turns)]
    for _ in range(4):
        _drain(map(attrgetter("id", "queue", "payload", "lease"), records))


def _dicts(turns: int) -> None:
    numbers = {f"k{number}": number for number in range(turns)}
    names = list(numbers)
    for _ in range(4):
        _drain(map(numbers.get, names))
        _drain(map(numbers.__getitem__, names))
    for name in names:
        numbers.pop(name)


def _json(turns: int) -> None:
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(_Record).decode
    records = [_Record(10**12 + number, "default", b"x" * 98, "t" * 20) for number in range(turns)]
    _drain(map(decode, list(map(encode, records))))


def _texts(turns: int) -> None:
    parts = [b"HTTP/1.1 200 OK\r\nContent-Length: ", b"123", b"\r\n\r\n", b'{"id":"1","x":1}']
    texts = [b"".join(parts) for _ in range(turns)]
    _drain(map(bytes.find, texts, [b"\r\n\r\n"] * turns))
    _drain(text[10:40].decode() for text in texts)


def _objects(turns: int) -> None:
    kept, total = _Counter(0, 1), 0
    for number in range(turns):
        total += kept.step(number)
        if total & 1:
            kept.sum = total & 7
        made = _Counter(number, total)
        both = [made, kept]
        total = len(both) + made.last
