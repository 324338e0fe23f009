"""The tasks of a parcel service, for the tests of `jobqueue.taskiq`."""

from pathlib import Path

from jobqueue.taskiq import JobQueueBroker

broker = JobQueueBroker(queue="parcels", queues=["urgent", "parcels"])


@broker.task("pack")
def pack(weight: int, path: str) -> None:
    Path(path).write_text(f"packed {weight}")
