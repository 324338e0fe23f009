"""Declaring jobs, without a server: types, options, payloads, and the mistakes that are refused."""

import dataclasses
import logging
from typing import Any

import msgspec
import pytest

from jobqueue import Context, Jobs, current
from jobqueue.jobs.signature import Signature


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Model:
    """What a pydantic model looks like from outside."""

    def __init__(self, value: int) -> None:
        self.value = value

    @classmethod
    def model_validate(cls, given: Any) -> "Model":
        if not isinstance(given, dict) or not isinstance(given.get("value"), int):
            raise ValueError("value: an integer")
        return cls(given["value"])

    def model_dump(self, mode: str = "python") -> dict[str, int]:
        return {"value": self.value}


def payload_of(declared: Any, *args: Any, **kwargs: Any) -> Any:
    return declared.prepare(*args, **kwargs).new.payload


def test_a_payload_is_an_object_of_the_arguments_given():
    jobs = Jobs()

    @jobs.job
    def move(ctx: Context, to: Point, /, speed: float = 1.0, *, mode: str = "walk") -> None: ...

    assert payload_of(move, Point(1)) == {"to": Point(1)}
    assert payload_of(move, Point(1), 2.0, mode="run") == {"to": Point(1), "speed": 2.0, "mode": "run"}
    for args, kwargs in (((), {}), ((Point(1), 2.0, "run"), {}), ((Point(1),), {"pace": 1})):
        with pytest.raises(TypeError):
            payload_of(move, *args, **kwargs)


def test_a_payload_is_decoded_by_the_annotations():
    def move(
        ctx: Context,
        to: Point,
        /,
        speed: float = 1.0,
        *,
        mode: "str | None" = None,
        model: Model | None = None,
    ):
        return to, speed, mode, model

    signature, context = Signature(move), Context()
    positional, named = signature.call_of(b'{"to":{"x":1},"mode":"run"}', context)
    assert (positional, named) == ([context, Point(1)], {"mode": "run"})
    _, named = signature.call_of(b'{"to":{"x":1},"model":{"value":3}}', context)
    assert named["model"].value == 3
    for payload, said in (
        (b'{"to":{"x":1},"sped":1}', "unknown field `sped`"), (b"{}", "missing required field `to`"),
        (b'{"to":{"x":"a"}}', r"at `\$.to.x`"), (b'{"to":{"x":1},"model":{}}', "value: an integer"), (b"{", "truncated"),
    ):  # fmt: skip
        with pytest.raises((msgspec.MsgspecError, ValueError), match=said):
            signature.call_of(payload, context)


def test_the_context_is_known_by_its_annotation_only():
    def with_context(ctx: "Context", a: int) -> None: ...
    def without(ctx: int, a: int) -> None: ...
    def unannotated(ctx, a): ...

    assert [Signature(one).takes_context for one in (with_context, without, unannotated)] == [
        True,
        False,
        False,
    ]


def test_functions_that_cannot_be_jobs_are_refused_where_they_are_declared():
    jobs = Jobs()
    with pytest.raises(TypeError, match=r"cannot have \*args"):
        jobs.job(lambda *args: None)
    with pytest.raises(TypeError, match="did you mean priority"):
        jobs.job("x", priorty=1)
    with pytest.raises(TypeError, match="cannot be defined inside a function"):
        jobs.job("local", process=True)(lambda a: None)

    async def task() -> None: ...

    with pytest.raises(TypeError, match="not for an async def"):
        jobs.job("task", process=True)(task)
    for timeout in (0, "a while", -1):
        with pytest.raises(ValueError, match="timeout: a duration above 0"):
            jobs.job("slow", timeout=timeout)(lambda: None)


def test_lines_of_a_job_say_which_job_and_where(caplog, logged):
    context = Context(id=7, type="100%s", attempt=2)
    with caplog.at_level(logging.INFO, "jobqueue.job"):
        context.log.info("half: 50%")
        context.log.info("%d%%", 60, extra={"shop": "a"})
        context.log.debug("not shown")
        try:
            raise ValueError(3)
        except ValueError:
            context.log.exception("failed")
    prefix = "job 7 (100%s, attempt 2): "
    lines = ["half: 50%", "60%", "failed"]
    assert [record.getMessage() for record in caplog.records] == [prefix + line for line in lines]
    assert {record.funcName for record in caplog.records} == {"test_lines_of_a_job_say_which_job_and_where"}
    assert (caplog.records[1].job, caplog.records[1].shop, caplog.records[1].queue) == (7, "a", "default")
    assert logged.pop().exc_info is not None


def test_a_type_is_declared_once():
    jobs = Jobs()

    @jobs.job
    def send() -> None: ...

    with pytest.raises(ValueError, match="there is a job 'send' already"):
        jobs.job("send")(lambda: None)


def test_a_call_is_a_call():
    jobs = Jobs()

    @jobs.job(queue="mail")
    def double(ctx: Context, a: int) -> int:
        """Doubles."""
        ctx.progress(50)
        return a * 2

    assert double(4) == 8
    assert (double.__name__, double.__doc__) == ("double", "Doubles.")
    with pytest.raises(LookupError, match="no job runs here"):
        current()


def test_options_make_a_copy():
    jobs = Jobs(queue="work")

    @jobs.job(tags=["a"], key=lambda owner: f"o-{owner}")
    def thumb(owner: str) -> None: ...

    urgent = thumb.options(priority=9, tags=["b"])
    assert thumb.prepare("ada").new.options == {"queue": "work", "tags": ["a"], "key": "o-ada"}
    assert urgent.prepare("ada").new.options == {
        "queue": "work",
        "tags": ["b"],
        "priority": 9,
        "key": "o-ada",
    }
    assert urgent.options(key="k").prepare("ada").new.options["key"] == "k"
    with pytest.raises(TypeError, match="did you mean delay"):
        thumb.options(dealy=1)
    with pytest.raises(TypeError, match="give it to enqueue_many"):
        thumb.options(idempotency_key="k").prepare("ada")
