"""How a verb is written once and serves both clients.

A verb is a method of a `Group` that returns a `Call` and does no I/O. Its decorator makes it, on a group of
`Client`, a method that returns the result, and on a group of `AsyncClient` a coroutine function. Type
checkers see the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from jobqueue.client.call import Call, StreamCall
from jobqueue.client.streams import AsyncStream, Stream

P = ParamSpec("P")
T = TypeVar("T")
# A verb of several requests: yields calls, is sent their results, and returns its own.
Steps = Generator[Call[Any], Any, T]
# A verb of pages: makes the call for the page at a cursor. Its result is the items and the next cursor.
Pages = Callable[[str | None], Call[tuple[list[T], str | None]]]


class CallSequence(Generic[T]):
    """The calls of a verb of several requests, one after the other.

    `call` is the next one. None: there is no further one, and the verb has its `result`.
    """

    result: T

    def __init__(self, steps: Steps[T]) -> None:
        self._steps = steps
        self.call: Call[Any] | None = None
        self.send(None)

    def send(self, result: Any) -> None:
        """Goes on with the result of the call."""
        try:
            self.call = self._steps.send(result)
        except StopIteration as done:
            self.call, self.result = None, done.value

    def throw(self, error: Exception) -> None:
        """Goes on with what the call raised. The verb may raise it again."""
        try:
            self.call = self._steps.throw(error)
        except StopIteration as done:
            self.call, self.result = None, done.value


class Sync:
    """Marks the groups of `Client`."""


class Async:
    """Marks the groups of `AsyncClient`."""


M_co = TypeVar("M_co", bound="Sync | Async", covariant=True)


class Runner(Protocol):
    """Makes methods of a group from what its verbs return."""

    def verb(self, make: Callable[..., Call[Any]]) -> Callable[..., Any]: ...
    def steps(self, make: Callable[..., Steps[Any]]) -> Callable[..., Any]: ...
    def stream(self, make: Callable[..., StreamCall[Any]]) -> Callable[..., Any]: ...
    def pages(self, make: Callable[..., Pages[Any]]) -> Callable[..., Any]: ...


class Group(Generic[M_co]):
    """Verbs of one kind of thing. `consumer`: the name that its calls give unless they say another."""

    def __init__(self, runner: Runner, consumer: str | None = None) -> None:
        self._runner = runner
        self._consumer = consumer


class _Descriptor:
    """Binds a verb to a group, once: the bound method is kept in the group, where it is found first."""

    _kind = ""

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def _bind(self, group: Group[Any] | None) -> Any:
        if group is None:
            return self
        make = self._make.__get__(group)
        bound = update_wrapper(getattr(group._runner, self._kind)(make), make)
        vars(group)[self._make.__name__] = bound
        return bound


class verb(_Descriptor, Generic[P, T]):  # a decorator
    """A verb of one request."""

    _kind = "verb"

    def __init__(self, make: Callable[Concatenate[Any, P], Call[T]]) -> None:
        super().__init__(make)

    @overload
    def __get__(self, group: None, owner: type) -> verb[P, T]: ...
    @overload
    def __get__(self, group: Group[Sync], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, group: Group[Async], owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, group: Group[Any] | None, owner: type) -> Any:
        return self._bind(group)


class steps(_Descriptor, Generic[P, T]):  # a decorator
    """A verb of several requests, one after the other."""

    _kind = "steps"

    def __init__(self, make: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        super().__init__(make)

    @overload
    def __get__(self, group: None, owner: type) -> steps[P, T]: ...
    @overload
    def __get__(self, group: Group[Sync], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, group: Group[Async], owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, group: Group[Any] | None, owner: type) -> Any:
        return self._bind(group)


class stream(_Descriptor, Generic[P, T]):  # a decorator
    """A verb whose answer is a stream."""

    _kind = "stream"

    def __init__(self, make: Callable[Concatenate[Any, P], StreamCall[T]]) -> None:
        super().__init__(make)

    @overload
    def __get__(self, group: None, owner: type) -> stream[P, T]: ...
    @overload
    def __get__(self, group: Group[Sync], owner: type) -> Callable[P, Stream[T]]: ...
    @overload
    def __get__(self, group: Group[Async], owner: type) -> Callable[P, AsyncStream[T]]: ...
    def __get__(self, group: Group[Any] | None, owner: type) -> Any:
        return self._bind(group)


class pages(_Descriptor, Generic[P, T]):  # a decorator
    """A verb that goes through all pages of a list, and asks for the next one when it is needed."""

    _kind = "pages"

    def __init__(self, make: Callable[Concatenate[Any, P], Pages[T]]) -> None:
        super().__init__(make)

    @overload
    def __get__(self, group: None, owner: type) -> pages[P, T]: ...
    @overload
    def __get__(self, group: Group[Sync], owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, group: Group[Async], owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, group: Group[Any] | None, owner: type) -> Any:
        return self._bind(group)
