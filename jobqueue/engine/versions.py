"""The check of `If-Match`, which is the same for jobs, queues and schedules."""

from jobqueue.errors import PreconditionFailed


def check_version(kind: str, version: int, wanted: int | None, **facts: object) -> None:
    """Raises `PreconditionFailed` with `facts` if what a caller is to change has another version than the one
    that it `wanted`; None: any. `kind`: "job", "queue" or "schedule"."""
    if wanted is not None and version != wanted:
        raise PreconditionFailed(
            f'the {kind} has changed, and its ETag is "{version}" now; read it again', **facts
        )
