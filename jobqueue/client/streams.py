"""Cuts streams into items, and the iterators that a caller gets."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec

from jobqueue.client.errors import BadAnswer
from jobqueue.client.http import AsyncStreamed, Streamed
from jobqueue.client.models import Event
from jobqueue.client.numbers import clamped

T = TypeVar("T")
Split = Callable[[bytes], list[T]]


def lines() -> Split[bytes]:
    """Returns a function that takes pieces of a stream and returns the lines that are whole, without their
    ends. Empty lines, which keep a connection alive, are left out."""
    kept = bytearray()

    def split(piece: bytes) -> list[bytes]:
        kept.extend(piece)
        end = kept.rfind(b"\n") + 1
        if not end:
            return []
        whole = bytes(kept[:end])
        del kept[:end]
        return [line for line in whole.split(b"\n") if line]

    return split


def decoded(decode: Callable[[bytes], T]) -> Split[T]:
    """As `lines`, each line decoded. Raises `BadAnswer`."""
    split_lines = lines()

    def split(piece: bytes) -> list[T]:
        try:
            return [clamped(decode, line) for line in split_lines(piece)]
        except msgspec.MsgspecError as bad:
            raise BadAnswer(f"a line of the stream cannot be read: {bad}") from None

    return split


def events() -> Split[Event]:
    """Returns a function that takes pieces of a stream and returns the server-sent events that are whole."""
    kept = bytearray()

    def split(piece: bytes) -> list[Event]:
        kept.extend(piece)
        end = kept.rfind(b"\n\n") + 2
        if end < 2:
            return []
        whole = bytes(kept[:end])
        del kept[:end]
        return [event for block in whole.split(b"\n\n") if (event := _event(block)) is not None]

    return split


def _event(block: bytes) -> Event | None:
    fields: dict[str, list[str]] = {}
    for line in block.decode("utf-8", "replace").split("\n"):
        name, colon, value = line.partition(":")
        if name and colon:
            fields.setdefault(name, []).append(value.removeprefix(" "))
    if "data" not in fields:
        return None
    data = "\n".join(fields["data"])
    try:
        read: Any = clamped(msgspec.json.decode, data.encode())
    except msgspec.MsgspecError:
        read = data
    return Event(fields.get("event", ["message"])[-1], fields.get("id", [""])[-1], read)


class Stream(Generic[T]):
    """Items as they arrive. Iterate over it, best inside a `with`, which closes the connection at its end.

    Raises `AnswerLost` when the connection ends before the stream does.
    """

    def __init__(self, opened: Streamed, split: Split[T]) -> None:
        self._opened = opened
        self._items = self._split(split)

    def _split(self, split: Split[T]) -> Iterator[T]:
        for piece in self._opened:
            yield from split(piece)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        return next(self._items)

    def close(self) -> None:
        """Closes the connection."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream(Generic[T]):
    """Items as they arrive, for `async for`; best inside an `async with`, which closes the connection.

    The request is sent when it is entered, or at the first item.
    """

    def __init__(self, opening: Callable[[], Coroutine[Any, Any, AsyncStreamed]], split: Split[T]) -> None:
        self._opening = opening
        self._split = split
        self._opened: AsyncStreamed | None = None
        self._pieces: AsyncIterator[bytes] | None = None
        self._items: deque[T] = deque()

    async def _open(self) -> AsyncIterator[bytes]:
        if self._pieces is None:
            self._opened = await self._opening()
            self._pieces = aiter(self._opened)
        return self._pieces

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            self._items.extend(self._split(await anext(await self._open())))
        return self._items.popleft()

    async def close(self) -> None:
        """Closes the connection."""
        if self._opened is not None:
            await self._opened.close()

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
