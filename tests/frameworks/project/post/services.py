"""A task in a module that no worker imports by itself."""

from post.tasks import task


@task
def pack(weight: int) -> int:
    return weight * 2
