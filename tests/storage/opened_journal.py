"""An engine on a journal in a folder, for tests of what is stored."""

from jobqueue.engine.opening import open_journal
from jobqueue.settings import Settings
from jobqueue.storage.data_dir import DataDir


async def engine_on(folder, clock):
    engine = open_journal(DataDir(str(folder)), Settings(first_id=1), clock)
    await engine.load()
    return engine
