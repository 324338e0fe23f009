"""Call: one request of an SDK, as the actions see it."""

from typing import Any, Final, Protocol, TypeVar

from jobqueue.engine.api import EngineView
from jobqueue.errors import BodyTooLarge
from jobqueue.web.context import Context
from jobqueue.web.http import Request, Response
from jobqueue.web.sqs import names, queue_attributes
from jobqueue.web.sqs.errors import QUEUE_DOES_NOT_EXIST, SqsError, message_too_long, missing
from jobqueue.web.sqs.move_tasks import MoveTasks
from jobqueue.web.sqs.queue_attributes import MOST_BYTES, QueueRecord
from jobqueue.web.sqs.signatures import account_and_region

T = TypeVar("T")


class Wire(Protocol):
    """One of the two protocols: how parameters are read, and how answers and refusals are written."""

    no_queue: str  # the message for a queue that does not exist

    def read(self, body: bytes, shape: type[T]) -> T:
        """Raises `SqsError`."""

    def answer(self, action: str, result: dict[str, Any] | None, request_id: str) -> Response: ...

    def refuse(self, error: Exception, message: str, request_id: str) -> Response: ...


class SqsQueue:
    """A queue that exists for SQS, and the attributes that sends and receives ask for.

    `text` is what its record was decoded from. Times are seconds.
    """

    __slots__ = ("delay", "fifo", "max_size", "name", "record", "retention", "text", "visibility", "wait")

    def __init__(self, name: str, record: QueueRecord, text: bytes) -> None:
        self.name = name
        self.record = record
        self.text = text
        self.fifo = names.is_fifo(name)
        self.delay = record.number("DelaySeconds")
        self.max_size = record.number("MaximumMessageSize")
        self.retention = record.number("MessageRetentionPeriod")
        self.visibility = record.number("VisibilityTimeout")
        self.wait = record.number("ReceiveMessageWaitTimeSeconds")


class Call:
    """A request for the action `action`; the parameters are in `body`, of the request or its query.

    `request` is set only while the action is begun, not while it waits: the request refers to its call, and a
    circle would keep the body until the next collection of garbage.
    """

    __slots__ = (
        "_account",
        "action",
        "body",
        "context",
        "headers",
        "id",
        "named",
        "path",
        "queues",
        "request",
        "tasks",
        "wire",
    )

    def __init__(
        self, request: Request, wire: Wire, action: str, body: bytes, queues: "QueueCache", tasks: MoveTasks
    ) -> None:
        self.headers = request.headers
        self.path = request.path
        self.id = request.id
        self.request: Request | None = None
        self.wire = wire
        self.action = action
        self.body = body
        self.queues = queues
        self.tasks = tasks
        self._account: str | None = None
        self.named = ""  # the queue, once it is known
        self.context: Context

    @property
    def account(self) -> str:
        """The account that is shown: of the URL that was asked, else of the signature."""
        return self._account or account_and_region(self.headers)[0] or names.ACCOUNT

    @property
    def region(self) -> str:
        return account_and_region(self.headers)[1] or names.REGION

    @property
    def engine(self) -> EngineView:
        return self.context.engine

    @property
    def label(self) -> str:
        """What the request is in the audit log."""
        return f"AmazonSQS.{self.action}" + (f" of {self.named}" if self.named else "")

    def answer(self, result: dict[str, Any] | None) -> Response:
        return self.wire.answer(self.action, result, self.id)

    def refuse(self, error: Exception, message: str) -> Response:
        if isinstance(error, BodyTooLarge) and isinstance(limit := error.facts.get("limit"), int):
            message = message_too_long(min(MOST_BYTES, limit)).detail
        return self.wire.refuse(error, message, self.id)

    def queue_name(self, url: str | None) -> str:
        """Returns the name in the URL of the parameters, or in the path of the request. Raises `SqsError`."""
        if url:
            account, name = self.queues.of_url(url)
        elif (found := names.queue_of_path(self.path)) is not None:
            account, name = found
        else:
            raise missing("QueueUrl")
        self._account = account
        self.named = name[:100]
        return name

    def find(self, name: str) -> SqsQueue | None:
        """Returns the queue of this name; None: there is none for SQS. Raises `Refused`."""
        return self.queues.read(self.engine, name)

    def require(self, name: str) -> SqsQueue:
        queue = self.find(name)
        if queue is None:
            raise SqsError(QUEUE_DOES_NOT_EXIST, self.wire.no_queue)
        return queue

    def queue(self, url: str | None) -> SqsQueue:
        """Returns the queue of a URL. Raises `SqsError`, `Refused`."""
        return self.require(self.queue_name(url))

    def url(self, name: str) -> str:
        """Returns the URL of a queue at the host that was asked."""
        assert self.request is not None
        scheme, host = self.context.browser_policy.address(self.request)
        return f"{scheme}://{host}{names.queue_path(self.account, name)}"

    def arn(self, name: str) -> str:
        return names.queue_arn(self.region, self.account, name)


_MOST_KEPT: Final = 10_000
_LONGEST_URL: Final = 300
_LONGEST_RECORD: Final = 4096


class QueueCache:
    """Queues by name, each as long as the text of its record is the same; and accounts and names by URL."""

    def __init__(self) -> None:
        self._queues: dict[str, SqsQueue] = {}
        self._urls: dict[str, tuple[str | None, str]] = {}

    def of_url(self, url: str) -> tuple[str | None, str]:
        found = self._urls.get(url)
        if found is None:
            found = names.queue_of_url(url)
            if len(url) <= _LONGEST_URL:
                if len(self._urls) >= _MOST_KEPT:
                    self._urls.clear()
                self._urls[url] = found
        return found

    def read(self, engine: EngineView, name: str) -> SqsQueue | None:
        """Returns the queue of this name; None: there is none for SQS. Raises `Refused`."""
        settings = engine.queue_settings(name)
        text = settings.attributes
        if text is None:
            return None
        known = self._queues.get(name)
        if known is not None and known.text == text:
            return known
        record = queue_attributes.read(settings)
        if record is None:
            return None
        queue = SqsQueue(name, record, text)
        if len(text) <= _LONGEST_RECORD:
            if len(self._queues) >= _MOST_KEPT:
                self._queues.clear()
            self._queues[name] = queue
        return queue
