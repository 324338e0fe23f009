"""SqsError: a refusal in the terms of Amazon SQS, and what each refusal of the engine is in these terms."""

from typing import NamedTuple

from jobqueue.errors import (
    BadInput,
    BodyTooLarge,
    HeadersTooLarge,
    JobQueueError,
    MethodNotAllowed,
    NoRoom,
    Refused,
    TooMany,
    Unauthorized,
    Unavailable,
    UnsupportedEncoding,
)

_SERVICE = "com.amazonaws.sqs#"
_COMMON = "com.amazon.coral.service#"


class Kind(NamedTuple):
    """How a refusal is named: `type` in the JSON protocol, `code` in the query protocol."""

    type: str
    code: str
    status: int = 400

    @property
    def fault(self) -> str:
        """Whose fault the refusal is."""
        return "Receiver" if self.status >= 500 else "Sender"


def _of_service(name: str, status: int = 400, code: str = "") -> Kind:
    return Kind(_SERVICE + name, code or f"AWS.SimpleQueueService.{name}", status)


def _common(code: str, status: int = 400, name: str = "") -> Kind:
    return Kind(_COMMON + (name or code), code, status)


QUEUE_DOES_NOT_EXIST = _of_service("QueueDoesNotExist", code="AWS.SimpleQueueService.NonExistentQueue")
QUEUE_NAME_EXISTS = _of_service("QueueNameExists", code="QueueAlreadyExists")
INVALID_ATTRIBUTE_NAME = _of_service("InvalidAttributeName", code="InvalidAttributeName")
INVALID_ATTRIBUTE_VALUE = _of_service("InvalidAttributeValue", code="InvalidAttributeValue")
INVALID_MESSAGE_CONTENTS = _of_service("InvalidMessageContents", code="InvalidMessageContents")
RECEIPT_HANDLE_IS_INVALID = _of_service("ReceiptHandleIsInvalid", code="ReceiptHandleIsInvalid")
MESSAGE_NOT_INFLIGHT = _of_service("MessageNotInflight")
EMPTY_BATCH = _of_service("EmptyBatchRequest")
TOO_MANY_ENTRIES = _of_service("TooManyEntriesInBatchRequest")
BATCH_TOO_LONG = _of_service("BatchRequestTooLong")
IDS_NOT_DISTINCT = _of_service("BatchEntryIdsNotDistinct")
INVALID_BATCH_ID = _of_service("InvalidBatchEntryId")
OVER_LIMIT = _of_service("OverLimit", 403, "OverLimit")
UNSUPPORTED = _of_service("UnsupportedOperation")
RESOURCE_NOT_FOUND = _of_service("ResourceNotFoundException", 404, "ResourceNotFoundException")

INVALID_PARAMETER = _common("InvalidParameterValue", name="InvalidParameterValueException")
MISSING_PARAMETER = _common("MissingParameter", name="MissingRequiredParameterException")
INVALID_ACTION = _common("InvalidAction", name="UnknownOperationException")
MISSING_ACTION = _common("MissingAction")
SERIALIZATION = _common("SerializationException")
MALFORMED_QUERY = _common("MalformedQueryString", 404)
ACCESS_DENIED = _common("AccessDenied", 403, "AccessDeniedException")
MISSING_TOKEN = _common("MissingAuthenticationToken", 403, "MissingAuthenticationTokenException")
UNKNOWN_CLIENT = _common("InvalidClientTokenId", 403, "UnrecognizedClientException")
WRONG_SIGNATURE = _common("SignatureDoesNotMatch", 403, "InvalidSignatureException")
INCOMPLETE_SIGNATURE = _common("IncompleteSignature", 400, "IncompleteSignatureException")
THROTTLED = _of_service("RequestThrottled", 403, "RequestThrottled")
UNAVAILABLE = _common("ServiceUnavailable", 503, "ServiceUnavailableException")
TOO_LARGE = _common("RequestEntityTooLarge", 413, "RequestEntityTooLargeException")
INTERNAL = _common("InternalFailure", 500)


class SqsError(JobQueueError):
    """A refusal that has a name of its own in Amazon SQS."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def missing(name: str) -> SqsError:
    return SqsError(MISSING_PARAMETER, f"The request must contain the parameter {name}.")


def invalid(value: object, name: str, reason: str) -> SqsError:
    """Returns the error for the value of a parameter."""
    return SqsError(
        INVALID_PARAMETER, f"Value {str(value)[:200]} for parameter {name} is invalid. Reason: {reason}"
    )


def message_too_long(limit: int) -> SqsError:
    """Returns the error for a message of more than `limit` bytes."""
    return SqsError(
        INVALID_PARAMETER,
        f"One or more parameters are invalid. Reason: Message must be shorter than {limit} bytes.",
    )


_KINDS: tuple[tuple[type[JobQueueError], Kind], ...] = (
    (BodyTooLarge, INVALID_PARAMETER),
    (HeadersTooLarge, TOO_LARGE),
    (Unauthorized, MISSING_TOKEN),
    (Refused, ACCESS_DENIED),
    (TooMany, THROTTLED),
    (NoRoom, UNAVAILABLE),
    (Unavailable, UNAVAILABLE),
    (MethodNotAllowed, INVALID_ACTION),
    (UnsupportedEncoding, SERIALIZATION),
    (BadInput, INVALID_PARAMETER),
)


def kind_of(error: Exception) -> Kind:
    """Returns how a refusal of this server is named; anything but a refusal is an internal failure."""
    if isinstance(error, SqsError):
        return error.kind
    for refusal, kind in _KINDS:
        if isinstance(error, refusal):
            return kind
    return INVALID_PARAMETER if isinstance(error, JobQueueError) else INTERNAL
