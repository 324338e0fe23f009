"""jobqueue: the job queue that anybody can use with curl.

For an embedder: `make_app()` is a Tornado application, `MemoryEngine` the queue behind it, `Settings` its
settings. `jobqueue.testing.ManualClock` moves time by hand in tests.
"""

from jobqueue.engine.memory import MemoryEngine
from jobqueue.settings import Settings
from jobqueue.version import VERSION as __version__
from jobqueue.web.app import make_app

__all__ = ["MemoryEngine", "Settings", "__version__", "make_app"]
