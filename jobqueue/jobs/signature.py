"""The arguments and the result of a job's function, as JSON and back.

A payload is a JSON object of named arguments, so that a job may be enqueued from anywhere. It is decoded by
the annotations of the function: by msgspec what msgspec knows (numbers, text, `datetime`, `Literal`,
dataclasses, TypedDict, attrs, Struct …), by their own `model_validate` pydantic models. Nothing is pickled.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from jobqueue.jobs.context import Context

_BY_POSITION: Final = inspect.Parameter.POSITIONAL_ONLY
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Signature:
    """What a function takes and returns.

    Annotations are read when they are first needed, since they may name what is defined later. Raises
    `TypeError` for parameters without a name, `*args` and `**kwargs`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        whole = inspect.signature(function)
        parameters = list(whole.parameters.values())
        for parameter in parameters:
            if parameter.kind in _VARIADIC:
                raise TypeError(
                    f"{function.__qualname__}: a payload is an object of named arguments, so a job cannot "
                    f"have {parameter}"
                )
        self.takes_context = bool(parameters) and _is_context(parameters[0], function)
        if self.takes_context:
            parameters = parameters[1:]
        self._bound = whole.replace(parameters=parameters)
        self._names = [parameter.name for parameter in parameters]
        self._positional = [one.name for one in parameters if one.kind is _BY_POSITION]
        self._decode: Callable[[bytes], Any] | None = None
        self._returns: Any = UNSET

    def payload(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Returns the payload of a call. Arguments that are left out get their default when the job runs.

        Raises `TypeError`, as the call of the function would.
        """
        try:
            return dict(self._bound.bind(*args, **kwargs).arguments)
        except TypeError as bad:
            raise TypeError(f"{self.function.__qualname__}: {bad}") from None

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Returns the arguments of a call by name, with defaults."""
        bound = self._bound.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    def call_of(self, payload: bytes, context: Context) -> tuple[list[Any], dict[str, Any]]:
        """Decodes a payload, and returns the positional and named arguments to call the function with.

        Raises `msgspec.MsgspecError`, which names the field that does not fit.
        """
        if self._decode is None:
            self._decode = self._decoder()
        # A job without arguments may have been enqueued without a payload.
        decoded = self._decode(b"{}" if payload == b"null" else payload)
        named = {}
        for name in self._names:
            value = getattr(decoded, name)
            if value is not UNSET:
                named[name] = value
        positional: list[Any] = [context] if self.takes_context else []
        for name in self._positional:
            if name not in named:
                break
            positional.append(named.pop(name))
        return positional, named

    def result(self, json: bytes) -> Any:
        """Decodes a result by the annotation of what is returned. Raises `msgspec.MsgspecError`."""
        if self._returns is UNSET:
            hints = self._hints()
            self._returns = hints.get("return", Any)
        if self._returns is None or self._returns is type(None):
            return None
        return msgspec.json.decode(json, type=self._returns, dec_hook=decode_model)

    def _hints(self) -> dict[str, Any]:
        function = inspect.unwrap(self.function)
        return typing.get_type_hints(function, include_extras=True)

    def _decoder(self) -> Callable[[bytes], Any]:
        hints = self._hints()
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        for name, parameter in self._bound.parameters.items():
            kind = hints.get(name, Any)
            if parameter.default is inspect.Parameter.empty:
                fields.append((name, kind))
            else:
                fields.append((name, kind if kind is Any else kind | UnsetType, UNSET))
        struct = msgspec.defstruct(
            "Arguments", fields, kw_only=True, forbid_unknown_fields=True, module=self.function.__module__
        )  # fmt: skip
        return msgspec.json.Decoder(struct, dec_hook=decode_model).decode


def _is_context(parameter: inspect.Parameter, function: Callable[..., Any]) -> bool:
    """Is a first parameter annotated with `Context`? Annotations may be text, also under another name."""
    annotation = parameter.annotation
    if isinstance(annotation, str):
        scope = getattr(inspect.unwrap(function), "__globals__", {})
        found: Any = scope
        for part in annotation.strip("\"' ").split("."):
            found = found.get(part) if isinstance(found, dict) else getattr(found, part, None)
        annotation = found
    return annotation is Context


def decode_model(kind: Any, value: Any) -> Any:
    """Decodes what msgspec does not know: a pydantic model, by duck typing.

    Raises `ValueError` from the model's own check, which msgspec passes on with the field's path.
    """
    validate = getattr(kind, "model_validate", None)
    if validate is not None:
        return validate(value)
    raise NotImplementedError(f"a {getattr(kind, '__name__', kind)} cannot be read from JSON")
