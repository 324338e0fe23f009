"""Export and import: a queue as lines, one job a line. Both work in slices, a few jobs in each pass of the
loop.
"""

from asyncio import Future, sleep
from collections.abc import AsyncGenerator, Sequence
from functools import partial

from jobqueue.errors import BadInput, BodyTooLarge, JobQueueError
from jobqueue.model import Filter, ImportItem, ImportResult, Job
from jobqueue.steps import IN_PROGRESS
from jobqueue.web.context import Context
from jobqueue.web.futures import reading
from jobqueue.web.http import LINES, Request, Response, Stream, Upload
from jobqueue.web.operations.replies import queue_of_path
from jobqueue.web.schema.responses import Imported
from jobqueue.web.streams.flow import gathered
from jobqueue.web.writers import encoder

# Jobs in one pass of the loop.
_AT_ONCE = 100


def export_queue(context: Context, request: Request) -> Stream:
    name = queue_of_path(request)
    wanted = context.admin.export(request, name)
    context.check_queue(name)
    export = _Export(context, wanted)
    return Stream(export.pieces(), export.end, export.end, LINES, large=True)


class _Export:
    """Exports the jobs that exist when it begins, each in the state in which it is reached."""

    def __init__(self, context: Context, wanted: Filter) -> None:
        self._context = context
        self._wanted = wanted
        self._over = False

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        engine, encoder = self._context.engine, self._context.encoder.exported
        newest = await reading(engine, engine.newest_id)
        after: int | None = 0
        while after is not None and not self._over:
            following = partial(engine.list_jobs, self._wanted, after, True, _AT_ONCE)
            jobs, after = await reading(engine, following)
            for piece in gathered(encoder(job) for job in jobs if job.id <= newest and not _leaving(job)):
                yield piece
            if after is not None and after >= newest:
                return
            await sleep(0)

    def end(self) -> None:
        self._over = True


def _leaving(job: Job) -> bool:
    """Tells whether a job in progress is to be cancelled when it returns."""
    return job.status == IN_PROGRESS and job.extras is not None and job.extras.cancel_requested


def import_jobs(context: Context, request: Request) -> Upload:
    context.admin.nothing(Request(request.method, request.path, request.query, {}, b"", "", ""))
    arriving = _Import(context)
    return Upload(arriving.take, arriving.end, arriving.held)


def put_jobs(context: Context, request: Request) -> Upload:
    """Imports what `curl -T -` sends."""
    return import_jobs(context, request)


class _Import:
    """Imports lines as they arrive.

    Jobs that were imported stay, whatever is wrong with later lines. A client that sends everything again is
    told that those are known.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._engine = context.engine
        self._rest = bytearray()
        self._most = context.settings.max_request
        self._line = 0
        self._imported = 0
        self._known = 0

    async def take(self, piece: bytes) -> None:
        """Imports a piece of the body.

        Raises what is wrong with a line, with its number and the counts so far.
        """
        self._rest += piece
        end = self._rest.rfind(b"\n") + 1
        whole = bytes(self._rest[:end])
        del self._rest[:end]
        await self._lines(whole.split(b"\n")[:-1])
        if len(self._rest) > self._most:
            self._line += 1
            raise self._stopped(self._too_long())

    def held(self) -> int:
        """Returns the bytes of the line that is not complete yet."""
        return len(self._rest)

    async def end(self) -> Response:
        await self._lines([bytes(self._rest)] if self._rest else [])
        return Response(200, encoder.document(Imported(self._imported, self._known)))

    async def _lines(self, lines: Sequence[bytes]) -> None:
        for start in range(0, len(lines), _AT_ONCE):
            await self._some(lines[start : start + _AT_ONCE])
            await sleep(0)

    async def _some(self, lines: Sequence[bytes]) -> None:
        arrivals: list[ImportItem] = []
        numbers: list[int] = []
        bad: JobQueueError | None = None
        first = self._line
        for number, line in enumerate(lines, first + 1):
            if not line.strip():
                continue
            try:
                if len(line) > self._most:
                    raise self._too_long()
                arrivals.append(self._context.produce.import_item(line, self._engine.wall_now))
            except (BadInput, BodyTooLarge) as found:
                bad, self._line = found, number
                break
            numbers.append(number)
        taken = await self._taken(arrivals) if arrivals else ImportResult(0, 0)
        self._imported += taken.imported
        self._known += taken.known
        if taken.refused is not None:
            self._line = numbers[taken.imported + taken.known]
            raise self._stopped(taken.refused)
        if bad is not None:
            raise self._stopped(bad)
        self._line = first + len(lines)

    async def _taken(self, arrivals: Sequence[ImportItem]) -> ImportResult:
        try:
            taken = self._engine.import_jobs(arrivals)
            return await taken if isinstance(taken, Future) else taken
        except JobQueueError as refused:
            return ImportResult(0, 0, refused)

    def _too_long(self) -> BodyTooLarge:
        most = self._most
        return BodyTooLarge(f"a line is longer than {most:,} bytes", limit=most, setting="JOBQUEUE_MAX_BODY")

    def _stopped(self, error: JobQueueError) -> JobQueueError:
        error.detail = f"line {self._line}: {error.detail}"
        error.facts.update(line=self._line, imported=self._imported, known=self._known)
        return error
