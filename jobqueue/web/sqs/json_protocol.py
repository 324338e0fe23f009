"""The JSON protocol: `POST` with `X-Amz-Target: AmazonSQS.ACTION`, as SDKs have spoken it since 2023."""

from typing import Any, Final, TypeVar

import msgspec

from jobqueue.web.http import Response
from jobqueue.web.readers.json_text import REFUSED
from jobqueue.web.sqs.errors import SERIALIZATION, SqsError, kind_of

T = TypeVar("T")
TARGET: Final = b"x-amz-target"
PREFIX: Final = "AmazonSQS."
_TYPE: Final = "application/x-amz-json-1.0"
_encode: Final = msgspec.json.Encoder().encode


class JsonProtocol:
    """Reads parameters from JSON, and answers with JSON."""

    no_queue = "The specified queue does not exist."

    def __init__(self) -> None:
        self._decoders: dict[type, msgspec.json.Decoder[Any]] = {}  # one for each shape

    def read(self, body: bytes, shape: type[T]) -> T:
        decoder = self._decoders.get(shape)
        if decoder is None:
            decoder = self._decoders[shape] = msgspec.json.Decoder(shape)
        try:
            found: T = decoder.decode(body or b"{}")
        except REFUSED as bad:
            raise SqsError(SERIALIZATION, f"The request is not what the action takes: {bad}") from None
        return found

    def answer(self, action: str, result: dict[str, Any] | None, request_id: str) -> Response:
        headers = f"\r\nx-amzn-RequestId: {request_id}".encode("latin-1")
        return Response(200, b"{}" if result is None else _encode(result), headers, _TYPE)

    def refuse(self, error: Exception, message: str, request_id: str) -> Response:
        kind = kind_of(error)
        headers = f"\r\nx-amzn-RequestId: {request_id}\r\nx-amzn-query-error: {kind.code};{kind.fault}"
        body = _encode({"__type": kind.type, "message": message})
        return Response(kind.status, body, headers.encode("latin-1"), _TYPE)
