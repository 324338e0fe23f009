"""The readers of one server."""

from itertools import chain
from typing import Any

from jobqueue.settings import Settings
from jobqueue.web.readers.admin import AdminReaders
from jobqueue.web.readers.consume import ConsumeReaders
from jobqueue.web.readers.decoder import RequestDecoder
from jobqueue.web.readers.limits import Limits
from jobqueue.web.readers.produce import ProduceReaders


class Readers:
    """The readers of all calls, by the role of their caller. They share the limits of the settings."""

    def __init__(self, settings: Settings) -> None:
        limits = Limits(settings)
        self.produce = ProduceReaders(limits)
        self.consume = ConsumeReaders(limits)
        self.admin = AdminReaders(limits)

    def decoders(self) -> list[RequestDecoder[Any]]:
        """Returns the decoders of all calls, for the OpenAPI document."""
        return [*chain(self.produce.decoders(), self.consume.decoders(), self.admin.decoders())]
