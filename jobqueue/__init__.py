"""jobqueue: a job queue behind a REST API that can be used with curl.

For embedders: `make_app()` returns a Tornado application, `MemoryEngine` is the queue it serves, `Settings`
are its settings. `jobqueue.testing.ManualClock` moves time by hand in tests.
"""

from jobqueue.engine.local import LocalEngine as MemoryEngine
from jobqueue.settings import Settings
from jobqueue.version import VERSION as __version__
from jobqueue.web.tornado_app import make_app

__all__ = ["MemoryEngine", "Settings", "__version__", "make_app"]
