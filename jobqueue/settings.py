"""The settings: the name, type, default and meaning of each, declared once.

An embedder writes `Settings(lease="2s", first_id=1)`, the program `Settings.from_environment(os.environ)`.
This module never reads the environment by itself. Durations are integer milliseconds, sizes integer bytes.
"""

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from hashlib import sha256
from ipaddress import ip_network
from typing import Any, ClassVar, NamedTuple, Self

from jobqueue.advertised import is_advertisable
from jobqueue.errors import InvalidField, SettingError
from jobqueue.shards import MOST_SHARDS
from jobqueue.units import duration_ms, size_bytes

PREFIX = "JOBQUEUE_"
# Variables that clients, workers and `scripts/run.sh` read. One file of variables may serve all of them.
_OF_OTHERS = frozenset({"JOBQUEUE_URL", "JOBQUEUE_TOKEN", "JOBQUEUE_DIRECT", "JOBQUEUE_COMPILE"})
# Bytes of a job in JSON besides its payload and its result. Most are for the errors of 20 attempts and the
# last one, 16 KiB each.
_OTHER_FIELDS = 512 << 10
# Variables that Kubernetes sets in every pod for a Service named `jobqueue`.
_OF_KUBERNETES = re.compile(r"JOBQUEUE_(SERVICE_.*|PORT_\d+_.*)")


def _integer(low: int, high: int) -> Callable[[object], int]:
    def cast(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value, re.ASCII):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidField(f"must be a whole number from {low} to {high}")
        return value

    return cast


def _optional(cast: Callable[[object], int]) -> Callable[[object], int | None]:
    return lambda value: None if value is None else cast(value)


def _attempts(value: object) -> int | None:
    return None if value is None or value == "none" else _integer(1, 10_000)(value)


def _duration(low: str, high: str) -> Callable[[object], int]:
    def cast(value: object) -> int:
        ms = duration_ms(value)
        if not duration_ms(low) <= ms <= duration_ms(high):
            raise InvalidField(f"must be from {low} to {high}")
        return ms

    return cast


def _size(low: int, high: int) -> Callable[[object], int]:
    def cast(value: object) -> int:
        size = size_bytes(value)
        if not low <= size <= high:
            raise InvalidField(f"must be from {low} to {high} bytes")
        return size

    return cast


def _ratio(value: object) -> float:
    try:
        number = float(value) if isinstance(value, (int, float, str)) else -1.0
    except (ValueError, OverflowError):
        number = -1.0
    if not 0.1 <= number <= 0.95:
        raise InvalidField("must be a number from 0.1 to 0.95")
    return number


def _boolean(value: object) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False}
    found = value if isinstance(value, bool) else known.get(value.lower()) if isinstance(value, str) else None
    if found is None:
        raise InvalidField("must be true or false")
    return found


def _choice(*allowed: str) -> Callable[[object], str]:
    def cast(value: object) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise InvalidField(f"must be one of {', '.join(allowed)}")
        return value

    return cast


def _host(value: object) -> str:
    if not isinstance(value, str) or not value or any(c.isspace() for c in value):
        raise InvalidField("must be an address to listen on, such as 127.0.0.1, 0.0.0.0 or ::")
    return value


def _text(meaning: str) -> Callable[[object], str | None]:
    def cast(value: object) -> str | None:
        if value is not None and (not isinstance(value, str) or not value or not value.isprintable()):
            raise InvalidField(f"must be {meaning}")
        return value

    return cast


def _url(value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or not is_advertisable(value)):
        raise InvalidField(
            "must be the URL of this server, such as http://a.example.com:8080 or https://example.com/a: "
            "without a user and a query"
        )
    return value


def _data(value: object) -> str | None:
    place = _text("the path of a folder, or postgresql://user@host/database")(value)
    is_url = place is not None and ("://" in place or re.match(r"postgres(ql)?(:|//)", place))
    if is_url and not is_database(place or ""):
        raise InvalidField("must be the path of a folder, or postgresql://user@host/database")
    return place


def is_database(data: str) -> bool:
    """Tells whether a value of `data` is the URL of a database, not the path of a folder."""
    return data.startswith(("postgresql://", "postgres://"))


def _advertised(value: object) -> str | None:
    address = _text("host or host:port")(value)
    if address is not None and not re.fullmatch(
        r"[A-Za-z0-9_.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?", address
    ):
        raise InvalidField("must be host or host:port; an IPv6 address stands in brackets")
    if address is not None and (port := re.search(r":([0-9]+)$", address)) and not 1 <= int(port[1]) <= 65535:
        raise InvalidField("must have a port of 1 to 65535")
    return address


def _names(pattern: str, meaning: str) -> Callable[[object], tuple[str, ...]]:
    def cast(value: object) -> tuple[str, ...]:
        if not isinstance(value, str):
            raise InvalidField(f"must be {meaning}; separated by commas")
        names = tuple(name.strip().lower() for name in value.split(",") if name.strip())
        for name in names:
            if not re.fullmatch(pattern, name):
                raise InvalidField(f"must be {meaning}; separated by commas")
        return names

    return cast


def _networks(value: object) -> tuple[str, ...]:
    meaning = "addresses or networks, such as 10.0.0.0/8; separated by commas"
    names = _names(r"[0-9a-f.:]+(/[0-9]{1,3})?|unix", meaning)(value)
    try:
        return tuple(name if name == "unix" else str(ip_network(name)) for name in names)
    except ValueError:
        raise InvalidField(f"must be {meaning}") from None


def _secret(value: object) -> str | None:
    """Returns the SHA-256 of a secret in hex. The secret itself is not kept."""
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]{16,512}", value):
        raise InvalidField(
            "must be 16 to 512 printable characters without spaces; `jobqueue token` makes one"
        )
    return sha256(value.encode()).hexdigest()


class Setting(NamedTuple):
    """The declaration of one setting.

    `cast` checks and converts a value, the default included. It raises `InvalidField`. The value of a
    `secret` setting is never shown.
    """

    cast: Callable[[Any], Any]
    default: object
    meaning: str
    secret: bool = False


def _declare(cast: Callable[[Any], Any], default: object, meaning: str, secret: bool = False) -> Any:
    return Setting(cast, default, meaning, secret)


class Settings:
    """All settings, checked.

    Keyword arguments are the lower-case names below. Values may be written as people write them:
    `lease="2s"`, `max_body="1MiB"`. Raises `SettingError`, which names the setting.
    """

    host: str = _declare(
        _host, "0.0.0.0", "address to listen on; `::` means IPv6 and IPv4, unix:/path a Unix socket"
    )
    port: int = _declare(_integer(0, 65535), 8080, "port to listen on; 0: any free port")
    tls_cert: str | None = _declare(
        _text("the path of a file"),
        None,
        "certificate chain in PEM, the server's own first; the server then speaks HTTPS only",
    )
    tls_key: str | None = _declare(
        _text("the path of a file"), None, "private key, if it is not in the same file"
    )
    tls_client_ca: str | None = _declare(
        _text("the path of a file"),
        None,
        "CA certificates; every client must then present a certificate signed by one of them",
    )
    http: str = _declare(
        _choice("auto", "fast", "tornado"),
        "auto",
        "HTTP implementation: fast, or Tornado's own (the reference); auto: fast",
    )
    data: str | None = _declare(
        _data,
        None,
        "folder of the journal, or postgresql://…; default: memory only, jobs are lost when the server stops",
    )
    advertise: str | None = _declare(
        _advertised,
        None,
        "with PostgreSQL: where other servers reach this one: host or host:port; else its address, any port",
    )
    advertise_url: str | None = _declare(
        _url,
        None,
        "with several shards: URL at which clients reach this server itself; they are told of it; else none",
    )
    shards: int | None = _declare(
        _optional(_integer(1, MOST_SHARDS)),
        None,
        "with PostgreSQL: number of shards of a new database; default: as the database has it, or 1",
    )
    sync: str = _declare(
        _choice("always", "interval", "os"),
        "always",
        "when a change reaches the disk: always (before the answer), interval (within sync_interval) or os",
    )
    sync_interval: int = _declare(
        _duration("1ms", "10s"), "50ms", "how often the journal is written with sync=interval"
    )
    sync_leases: bool = _declare(
        _boolean,
        True,
        "with sync=always: a dequeue waits for the disk; false: its lease is on disk with the next change",
    )
    lease: int = _declare(_duration("1s", "24h"), "5m", "how long a dequeued job belongs to its consumer")
    lease_max: int = _declare(_duration("1s", "24h"), "24h", "longest lease that a client may request")
    wait_max: int = _declare(_duration("0s", "1h"), "60s", "longest wait that a client may request")
    require_lease: bool = _declare(
        _boolean, False, "refuse to finish or extend a job without its lease token"
    )
    retain: int = _declare(_duration("0s", "365d"), "1h", "how long a finished job is retained")
    retain_jobs: int = _declare(_integer(0, 100_000_000), 100_000, "most finished jobs retained")
    retain_bytes: int = _declare(_size(0, 1 << 40), "64MiB", "most bytes of finished jobs retained")
    max_attempts: int | None = _declare(
        _attempts, 25, "attempts before a failing job is dead; `none`: no limit"
    )
    dead_retain: int = _declare(_duration("0s", "365d"), "7d", "how long a dead job is retained")
    dead_jobs: int = _declare(_integer(0, 100_000_000), 100_000, "most dead jobs retained")
    dead_bytes: int = _declare(_size(0, 1 << 40), "256MiB", "most bytes of dead jobs retained")
    max_body: int = _declare(_size(1 << 10, 1 << 30), "1MiB", "largest payload of a job")
    max_result: int = _declare(_size(0, 1 << 30), "256KiB", "largest result of a job")
    max_depth: int = _declare(_integer(1, 500), 64, "deepest nesting of JSON")
    max_batch: int = _declare(_integer(1, 100_000), 1000, "most jobs in one request")
    max_connections: int | None = _declare(
        _optional(_integer(1, 10_000_000)),
        None,
        "most connections at once; default: the limit of open files minus 64",
    )
    access_token: str | None = _declare(
        _secret, None, "the access token that every request must carry; it has all rights", secret=True
    )
    tokens_file: str | None = _declare(
        _text("the path of a file"), None, "file of access tokens, each with its rights (docs/security.md)"
    )
    open_admin: bool = _declare(
        _boolean,
        False,
        "without access tokens: everybody may make administrative calls, such as purge and pause",
    )
    sqs: str = _declare(
        _choice("on", "off"),
        "on",
        "whether AWS SDKs may call the server as Amazon SQS, on the same port (docs/sqs.md): on or off",
    )
    ui: str = _declare(
        _choice("on", "off"), "on", "whether browsers get pages (docs/dashboard.md): on or off"
    )
    metrics_queues: int = _declare(_integer(0, 10_000), 100, "number of queues with their own metrics")
    max_headers: int = _declare(_size(1 << 10, 1 << 20), "64KiB", "largest request line and headers together")
    max_jobs: int | None = _declare(
        _optional(_integer(1, 1_000_000_000)),
        None,
        "most jobs in all queues, retained finished ones included; beyond that 429",
    )
    max_queues: int = _declare(_integer(1, 10_000_000), 10_000, "most queues; beyond that 429")
    max_schedules: int = _declare(_integer(0, 1_000_000), 10_000, "most schedules; beyond that 429")
    max_waiters: int = _declare(
        _integer(1, 10_000_000),
        100_000,
        "most waiting requests, counted once for each queue they name; beyond that 503",
    )
    memory_limit: int | None = _declare(
        _optional(_size(32 << 20, 1 << 50)),
        None,
        "memory of the process above which no jobs are accepted (507); default: 75 % of the machine's",
    )
    max_connections_by_address: int | None = _declare(
        _optional(_integer(1, 10_000_000)),
        None,
        "most connections from one address; default: half of max_connections, of another machine up to 4,096",
    )
    head_timeout: int = _declare(
        _duration("1s", "1h"), "30s", "how long a client may take to send the headers of a request"
    )
    body_timeout: int = _declare(
        _duration("1s", "1h"),
        "60s",
        "how long a client may take to send a body; for an import: how long it may send nothing",
    )
    idle_timeout: int = _declare(_duration("1s", "24h"), "5m", "how long a connection may be idle")
    write_timeout: int = _declare(
        _duration("1s", "1h"), "30s", "how long a client may read nothing of its answer"
    )
    rate: int | None = _declare(
        _optional(_integer(1, 1_000_000)),
        None,
        "requests a second for each access token, or for each address without a token; default: no limit",
    )
    allowed_hosts: tuple[str, ...] = _declare(
        _names(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*", "names such as queue.example.com or .example.com"),
        "",
        "host names that browsers may use, besides localhost, IP addresses and the machine's own name",
    )
    allowed_origins: tuple[str, ...] = _declare(
        _names(r"https?://[a-z0-9._-]+(:[0-9]{1,5})?", "origins, such as https://app.example.com"),
        "",
        "origins of web pages that may call this server (CORS)",
    )
    trusted_proxies: tuple[str, ...] = _declare(
        _networks,
        "",
        "proxies whose X-Forwarded-* headers are trusted, such as 10.0.0.0/8; unix: clients of a Unix socket",
    )
    lane_segment: int = _declare(_integer(16, 65_536), 1024, "slots in one segment of a lane")
    lane_spare: int = _declare(_integer(0, 1024), 1, "empty segments that a lane keeps for reuse")
    compact_above: float = _declare(_ratio, 0.5, "share of empty slots above which a lane is compacted")
    tick: int = _declare(
        _duration("10ms", "10s"),
        "100ms",
        "how often due work is done: stale jobs, delays, waits that are over",
    )
    drain: int = _declare(
        _duration("0s", "1h"),
        "4s",
        "how long requests in progress may take after the server was told to stop",
    )
    first_id: int | None = _declare(
        _optional(_integer(1, 2**53 - 1)), None, "the first job id; default: derived from the clock"
    )
    log_level: str = _declare(
        _choice("debug", "info", "warning", "error"),
        "info",
        "lowest level that is logged: debug, info, warning or error",
    )
    log_format: str = _declare(_choice("text", "json"), "text", "format of log lines: text or json")
    access_log: str = _declare(
        _choice("auto", "all", "errors", "off"),
        "auto",
        "requests that are logged: auto, all, errors or off; auto: 100 a second, then a summary each second",
    )

    declared: ClassVar[dict[str, Setting]]

    def __init__(self, **given: object) -> None:
        for name in given.keys() - self.declared.keys():
            raise SettingError(_unknown(name, list(self.declared)))
        for name, setting in self.declared.items():
            try:
                value = setting.cast(given.get(name, setting.default))
            except InvalidField as bad:
                # A URL may hold a password.
                shown = "…" if setting.secret else re.sub("//.*@", "//…@", str(given.get(name)))[:40]
                raise SettingError(f"{PREFIX}{name.upper()}={shown}: {bad.detail}") from None
            setattr(self, name, value)
        if self.lease > self.lease_max:
            raise SettingError(f"{PREFIX}LEASE is longer than {PREFIX}LEASE_MAX")
        if self.shards is not None and not is_database(self.data or ""):
            raise SettingError(
                f"{PREFIX}SHARDS={self.shards} is for a PostgreSQL database: set {PREFIX}DATA to its URL, or "
                f"leave {PREFIX}SHARDS out"
            )
        refuse_first_id(self.first_id, self.shards or 1)

    @property
    def max_payload_text(self) -> int:
        """Characters of the largest payload in base64."""
        return _base64_length(self.max_body)

    @property
    def max_request(self) -> int:
        """Bytes of the largest request body.

        The largest job as `GET /jobs/{id}` shows it fits, so any job can be enqueued again.
        """
        return self.max_payload_text + _base64_length(self.max_result) + _OTHER_FIELDS

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Reads the `JOBQUEUE_*` variables of `environ`.

        Raises `SettingError` for a bad value or an unknown name.
        """
        names = {PREFIX + name.upper(): name for name in cls.declared}
        given: dict[str, object] = {}
        for variable, value in environ.items():
            if not variable.startswith(PREFIX) or is_foreign(variable, value):
                continue
            if variable not in names:
                raise SettingError(_unknown(variable, list(names)))
            given[names[variable]] = value
        return cls(**given)

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name, setting in self.declared.items() if not setting.secret}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


Settings.declared = {name: value for name, value in vars(Settings).items() if isinstance(value, Setting)}


def refuse_first_id(first_id: int | None, shards: int) -> None:
    """Raises `SettingError` if ids are to begin at `first_id` in a database with several shards."""
    if first_id is not None and shards > 1:
        raise SettingError(
            f"{PREFIX}FIRST_ID={first_id} is for one shard: with {shards} of them each has ids of its own; "
            "leave it out"
        )


def _base64_length(size: int) -> int:
    return (size + 2) // 3 * 4


def is_foreign(variable: str, value: str) -> bool:
    """Tells whether a `JOBQUEUE_*` variable belongs to a client, a script or Kubernetes, not to the
    server."""
    if variable == "JOBQUEUE_PORT":
        return value.startswith("tcp://")
    return variable in _OF_OTHERS or _OF_KUBERNETES.fullmatch(variable) is not None


def _unknown(name: str, known: list[str]) -> str:
    by_letters = {each.lower().removeprefix(PREFIX.lower()): each for each in known}
    near = get_close_matches(name.lower().removeprefix(PREFIX.lower()), by_letters, n=1, cutoff=0.5)
    return f"unknown setting {name}" + (f"; did you mean {by_letters[near[0]]}?" if near else "")
