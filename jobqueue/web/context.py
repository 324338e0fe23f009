"""Context: what an operation may use while it serves one caller."""

from jobqueue.engine.api import EngineView
from jobqueue.errors import Refused
from jobqueue.settings import Settings
from jobqueue.web.access.browser_policy import BrowserPolicy
from jobqueue.web.access.identity import Principal
from jobqueue.web.readers.admin import AdminReaders
from jobqueue.web.readers.all import Readers
from jobqueue.web.readers.consume import ConsumeReaders
from jobqueue.web.readers.produce import ProduceReaders
from jobqueue.web.server_info import ServerInfo
from jobqueue.web.streams.events import Events
from jobqueue.web.writers.encoder import Encoder
from jobqueue.web.writers.top_screen import TopScreen


class Context:
    """The engine as the caller sees it, and what all callers share.

    `caller` is None if the server has no access tokens, and for calls that need none. There is one context
    for these, and one for each token.
    """

    __slots__ = (
        "admin",
        "browser_policy",
        "caller",
        "consume",
        "encoder",
        "engine",
        "events",
        "produce",
        "readers",
        "screen",
        "server",
        "settings",
    )

    def __init__(
        self,
        engine: EngineView,
        caller: "Principal[Context] | None",
        settings: Settings,
        readers: Readers,
        encoder: Encoder,
        events: Events,
        server: ServerInfo,
        browser_policy: BrowserPolicy,
    ) -> None:
        self.engine = engine
        self.caller = caller
        self.settings = settings
        self.readers = readers
        self.produce: ProduceReaders = readers.produce
        self.consume: ConsumeReaders = readers.consume
        self.admin: AdminReaders = readers.admin
        self.encoder = encoder
        self.events = events
        self.server = server
        self.browser_policy = browser_policy
        self.screen = TopScreen(engine, server)

    def for_caller(self, engine: EngineView, caller: "Principal[Context]") -> "Context":
        """Returns the context of `caller`, who sees `engine`; everything else is shared."""
        return Context(
            engine,
            caller,
            self.settings,
            self.readers,
            self.encoder,
            self.events,
            self.server,
            self.browser_policy,
        )

    @property
    def may_use_all(self) -> bool:
        """Whether the caller may use all queues."""
        return self.caller is None or self.caller.token.queues is None

    def check_queue(self, name: str) -> None:
        """Raises `Refused` if the caller may not use the queue `name`."""
        if self.caller is not None and not self.caller.may_use(name):
            raise Refused(f"this access token is not for the queue {name!r}")
