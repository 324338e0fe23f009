"""Facts about the running server that its operations report."""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from prometheus_client.core import Metric

from jobqueue.version import VERSION
from jobqueue.web.access.audit import AuditLog
from jobqueue.web.access.identity import Principal
from jobqueue.web.request_metrics import RequestMetrics


class Lag(NamedTuple):
    """How late the event loop is, in milliseconds: now and at most so far; and how often it stalled."""

    last_ms: float = 0.0
    max_ms: float = 0.0
    stalls: int = 0


class ServerInfo:
    """One object for all callers. The program that serves sets what only it knows.

    `connections` and `lag` return None where nobody counts. `more_metrics` are further sources of metrics.
    `document` returns the OpenAPI document as JSON, `tokens` the callers that have an access token.
    """

    def __init__(
        self,
        meter: RequestMetrics,
        has_tokens: bool,
        document: Callable[[], bytes],
        audit: AuditLog,
        tokens: Callable[[], Iterable[Principal[Any]]],
    ) -> None:
        self.version = VERSION
        self.started = time.monotonic()  # seconds
        self.started_at = time.time_ns() // 1_000_000  # milliseconds since 1970
        self.meter = meter
        self.has_tokens = has_tokens
        self.document = document
        self.audit = audit
        self.tokens = tokens
        self.connections: Callable[[], int | None] = lambda: None
        self.lag: Callable[[], Lag | None] = lambda: None
        self.max_connections: int | None = None
        self.max_connections_by_address: int | None = None
        self.more_metrics: list[Callable[[], Iterable[Metric]]] = []
