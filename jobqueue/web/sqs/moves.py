"""The actions for tasks that move messages out of a dead-letter queue."""

from base64 import b64encode
from typing import Any
from uuid import uuid4

import msgspec

from jobqueue.web.sqs import names, queues, shapes
from jobqueue.web.sqs.call import Call
from jobqueue.web.sqs.errors import INVALID_PARAMETER, RESOURCE_NOT_FOUND, UNSUPPORTED, SqsError, missing
from jobqueue.web.sqs.move_tasks import MOST_LISTED, MoveTask


def start_message_move_task(call: Call, asked: shapes.StartMessageMoveTask) -> dict[str, Any]:
    source = _queue(call, asked.source_arn, "SourceArn")
    target = None
    if asked.destination_arn is not None:
        target = _queue(call, asked.destination_arn, "DestinationArn")
        if target == source:
            raise SqsError(INVALID_PARAMETER, "Source queue arn and destination queue arn must be different.")
    rate = asked.max_number_of_messages_per_second
    if rate is not None and not 1 <= rate <= 500:
        raise SqsError(
            INVALID_PARAMETER,
            "Value for parameter MaxNumberOfMessagesPerSecond is invalid. Reason: must be from 1 to 500.",
        )
    if not queues.is_dead_letter_queue(call, source):
        raise SqsError(INVALID_PARAMETER, "Source queue must be configured as a Dead Letter Queue.")
    if any(task.running for task in call.tasks.of(source)):
        raise SqsError(
            UNSUPPORTED,
            "There is already a task running. Only one active task is allowed for a source queue arn at a "
            "given time.",
        )
    engine = call.engine
    jobs = engine.queue(source).jobs
    task = MoveTask(
        _handle(asked.source_arn or ""),
        source,
        target,
        (asked.source_arn or "", asked.destination_arn),
        rate,
        engine.wall_now(),
        jobs["queued"] + jobs["scheduled"],
        call.context.caller,
    )
    task.run(engine)
    call.tasks.add(task)
    return {"TaskHandle": task.handle}


def list_message_move_tasks(call: Call, asked: shapes.ListMessageMoveTasks) -> dict[str, Any]:
    source = _queue(call, asked.source_arn, "SourceArn")
    count = asked.max_results or 1
    if not 1 <= count <= MOST_LISTED:
        raise SqsError(INVALID_PARAMETER, "Value for parameter MaxResults is invalid. Reason: from 1 to 10.")
    return {"Results": [_shown(task) for task in call.tasks.of(source)[:count]]}


def cancel_message_move_task(call: Call, asked: shapes.CancelMessageMoveTask) -> dict[str, Any]:
    if not asked.task_handle:
        raise missing("TaskHandle")
    task = call.tasks.find(asked.task_handle)
    if task is None:
        raise SqsError(RESOURCE_NOT_FOUND, "Task does not exist.")
    call.require(task.source)  # checks that the caller may use it
    if not task.running:
        raise SqsError(UNSUPPORTED, "Only active tasks can be cancelled.")
    task.cancel()
    return {"ApproximateNumberOfMessagesMoved": task.moved}


def _handle(source_arn: str) -> str:
    """Returns a new handle in the form that AWS gives it, which some clients read."""
    return b64encode(msgspec.json.encode({"taskId": str(uuid4()), "sourceArn": source_arn})).decode()


def _queue(call: Call, arn: str | None, parameter: str) -> str:
    """Returns the name of the queue of an ARN. Raises `SqsError`."""
    if not arn:
        raise missing(parameter)
    name = names.queue_of_arn(arn)
    if name is None:
        raise SqsError(
            INVALID_PARAMETER,
            f"You must use this format to specify the {parameter}: "
            "arn:<partition>:<service>:<region>:<account-id>:<resource-id>",
        )
    if call.find(name) is None:
        raise SqsError(
            RESOURCE_NOT_FOUND,
            f"The resource that you specified for the {parameter} parameter doesn't exist.",
        )
    return name


def _shown(task: MoveTask) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "TaskHandle": task.handle if task.status == "RUNNING" else None,
        "Status": task.status,
        "SourceArn": task.source_arn,
        "DestinationArn": task.destination_arn,
        "MaxNumberOfMessagesPerSecond": task.rate,
        "ApproximateNumberOfMessagesMoved": task.moved,
        "ApproximateNumberOfMessagesToMove": task.to_move,
        "FailureReason": task.failure,
        "StartedTimestamp": task.started,
    }
    return {name: value for name, value in shown.items() if value is not None}
