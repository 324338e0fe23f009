"""The readers of one server."""

from jobqueue.settings import Settings
from jobqueue.web.readers.admin import AdminReaders
from jobqueue.web.readers.consume import ConsumeReaders
from jobqueue.web.readers.limits import Limits
from jobqueue.web.readers.produce import ProduceReaders
from jobqueue.web.readers.schedules import ScheduleReaders


class Readers:
    """The readers of all calls, by the role of their caller. They share the limits of the settings."""

    def __init__(self, settings: Settings) -> None:
        self.limits = limits = Limits(settings)
        self.produce = ProduceReaders(limits)
        self.consume = ConsumeReaders(limits)
        self.admin = AdminReaders(limits)
        self.schedules = ScheduleReaders(limits, self.produce)
