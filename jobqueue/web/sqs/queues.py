"""The actions for queues: they are created, found, listed, changed, tagged, emptied and deleted."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from jobqueue.engine.api import EngineView, MaybeFuture
from jobqueue.errors import Refused
from jobqueue.model import Filter, QueueSettings, QueueView
from jobqueue.web.futures import then, without_result
from jobqueue.web.sqs import names, queue_attributes, shapes
from jobqueue.web.sqs.call import Call, SqsQueue
from jobqueue.web.sqs.errors import (
    INVALID_ATTRIBUTE_NAME,
    INVALID_PARAMETER,
    OVER_LIMIT,
    QUEUE_NAME_EXISTS,
    SqsError,
    invalid,
    missing,
)
from jobqueue.web.sqs.queue_attributes import COUNTS, KNOWN, QueueRecord

_PAGE = 1000
_MOST_LISTED = 1000
_MOST_TAGS = 50
# Bytes of all that is kept of one queue.
_MOST_BYTES = 1 << 16


def create_queue(call: Call, asked: shapes.CreateQueue) -> MaybeFuture[dict[str, Any]]:
    name = asked.queue_name
    if name is None:
        raise missing("QueueName")
    given = asked.attributes or {}
    names.check_name(name, (given.get("FifoQueue") or "").lower() == "true")
    attributes = queue_attributes.check(name, given)
    tags = asked.tags or asked.other_tags or {}
    _check_tags(name, tags)
    known = call.find(name)
    if known is not None:
        _check_same(known, attributes)
        return {"QueueUrl": call.url(name)}
    _check_may_create(call, name)
    now = call.engine.wall_now() // 1000
    record = QueueRecord(now, now, {each: value for each, value in attributes.items() if value}, tags)
    return then(_store(call, name, record), partial(_url, call.url(name)))


def _check_may_create(call: Call, name: str) -> None:
    """Raises `Refused` if that would change the settings of a queue that somebody has made by the HTTP API,
    which needs the right `admin`."""
    caller = call.context.caller
    if caller is not None and not caller.admin and call.engine.queue_settings(name) != QueueSettings():
        raise Refused(f"the queue {name} has settings; to make it one of SQS needs the right 'admin'")


def _check_same(known: SqsQueue, attributes: dict[str, str]) -> None:
    """Raises `SqsError` if a queue has another value of one of these attributes."""
    there = queue_attributes.effective(known.name, known.record)
    for name, value in attributes.items():
        if there.get(name, "") != value:
            raise SqsError(
                QUEUE_NAME_EXISTS,
                f"A queue already exists with the same name and a different value for attribute {name}",
            )


def _url(url: str, _: object) -> dict[str, Any]:
    return {"QueueUrl": url}


def _store(call: Call, name: str, record: QueueRecord) -> MaybeFuture[QueueView]:
    _check_redrive(call, name, record)
    before = call.engine.queue_settings(name).attributes
    changes = queue_attributes.settings_of(name, record, before)
    if isinstance(text := changes["attributes"], bytes) and len(text) > _MOST_BYTES:
        raise SqsError(
            INVALID_PARAMETER,
            f"The attributes and tags of a queue are longer than {_MOST_BYTES} bytes together.",
        )
    return call.engine.configure(name, changes)


def _check_redrive(call: Call, name: str, record: QueueRecord) -> None:
    text = record.attributes.get("RedrivePolicy")
    policy = queue_attributes.redrive_policy(text)
    if policy is None:
        return
    target = call.find(policy.target)
    if target is None:
        raise invalid(text, "RedrivePolicy", "Dead letter target does not exist.")
    if target.fifo != names.is_fifo(name):
        raise invalid(text, "RedrivePolicy", "Dead-letter queue must be same type of queue as the source.")
    if not queue_attributes.may_redrive(target.record.attributes.get("RedriveAllowPolicy"), name):
        raise invalid(
            text, "RedrivePolicy", "Queue does not have permission to redrive to the dead-letter queue."
        )


def get_queue_url(call: Call, asked: shapes.GetQueueUrl) -> dict[str, Any]:
    if not asked.queue_name:
        raise missing("QueueName")
    return {"QueueUrl": call.url(call.require(asked.queue_name).name)}


# -- lists -----------------------------------------------------------------------------------------


def list_queues(call: Call, asked: shapes.Listed) -> dict[str, Any]:
    prefix = asked.queue_name_prefix or ""

    def listed(view: QueueView) -> bool:
        return view.name.startswith(prefix)

    return _listed(call, asked, "QueueUrls", listed)


def list_dead_letter_source_queues(call: Call, asked: shapes.Listed) -> dict[str, Any]:
    target = call.queue(asked.queue_url).name

    def listed(view: QueueView) -> bool:
        return view.settings.dead_letter == target and view.name != target

    found = _listed(call, asked, "queueUrls", listed)
    return {"queueUrls": [], **found}


def _listed(
    call: Call, asked: shapes.Listed, member: str, listed: Callable[[QueueView], bool]
) -> dict[str, Any]:
    limit = asked.max_results
    if limit is not None and not 1 <= limit <= _MOST_LISTED:
        raise invalid(limit, "MaxResults", "Must be an integer between 1 and 1000.")
    if asked.next_token is not None and limit is None:
        raise SqsError(
            INVALID_PARAMETER, "MaxResults is a mandatory parameter when you provide a value for NextToken."
        )
    after = _read_token(asked.next_token) if asked.next_token else None
    found: list[str] = []
    for view in _sqs_queues(call, after):
        if listed(view):
            found.append(view.name)
            if len(found) > (limit or _MOST_LISTED):
                break
    if not found:
        return {}
    shown = found[: limit or _MOST_LISTED]
    answer: dict[str, Any] = {member: [call.url(name) for name in shown]}
    if limit is not None and len(shown) < len(found):
        answer["NextToken"] = urlsafe_b64encode(shown[-1].encode()).decode()
    return answer


def _read_token(token: str) -> str:
    try:
        return urlsafe_b64decode(token).decode()
    except (ValueError, NotBase64):
        raise SqsError(INVALID_PARAMETER, "Invalid or expired next token.") from None


def _sqs_queues(call: Call, after: str | None) -> Iterator[QueueView]:
    """Yields the queues of SQS in the order of names."""
    while True:
        views = call.engine.queues(_PAGE, after)
        yield from (view for view in views if queue_attributes.read(view.settings) is not None)
        if len(views) < _PAGE:
            return
        after = views[-1].name


def is_dead_letter_queue(call: Call, name: str) -> bool:
    return any(view.settings.dead_letter == name for view in _sqs_queues(call, None))


# -- attributes ------------------------------------------------------------------------------------


def get_queue_attributes(call: Call, asked: shapes.GetQueueAttributes) -> dict[str, Any]:
    queue = call.queue(asked.queue_url)
    wanted = asked.attribute_names or []
    for name in wanted:
        if name not in KNOWN:
            raise SqsError(INVALID_ATTRIBUTE_NAME, f"Unknown Attribute {name[:100]}.")
    if not wanted:
        return {}
    view = call.engine.queue(queue.name)
    record = queue.record
    shown = {name: str(view.jobs[status]) for name, status in COUNTS.items()}
    shown["CreatedTimestamp"], shown["LastModifiedTimestamp"] = str(record.created), str(record.modified)
    shown["QueueArn"] = call.arn(queue.name)
    shown |= queue_attributes.effective(queue.name, record)
    if "KmsMasterKeyId" not in shown:
        shown.pop("KmsDataKeyReusePeriodSeconds", None)  # it means nothing then
    if (lease := view.settings.lease_for) is not None:
        shown["VisibilityTimeout"] = str(lease // 1000)  # a client of the HTTP API may have changed it
    if "All" not in wanted:
        shown = {name: value for name, value in shown.items() if name in wanted}
    return {"Attributes": shown} if shown else {}


def set_queue_attributes(call: Call, asked: shapes.SetQueueAttributes) -> MaybeFuture[None]:
    queue = call.queue(asked.queue_url)
    if not asked.attributes:
        raise missing("Attribute.Name")
    given = queue_attributes.check(queue.name, asked.attributes)
    attributes = {name: value for name, value in {**queue.record.attributes, **given}.items() if value}
    return _change(call, queue, attributes=attributes)


def _change(call: Call, queue: SqsQueue, **changes: object) -> MaybeFuture[None]:
    record = replace(queue.record, modified=call.engine.wall_now() // 1000, **changes)
    return without_result(_store(call, queue.name, record))


# -- tags and permissions --------------------------------------------------------------------------


def tag_queue(call: Call, asked: shapes.TagQueue) -> MaybeFuture[None]:
    queue = call.queue(asked.queue_url)
    if not asked.tags:
        raise missing("Tags")
    tags = {**queue.record.tags, **asked.tags}
    _check_tags(queue.name, tags)
    return _change(call, queue, tags=tags)


def _check_tags(queue: str, tags: dict[str, str]) -> None:
    if len(tags) > _MOST_TAGS:
        raise SqsError(INVALID_PARAMETER, f"Too many tags added for queue {queue}.")
    for name, value in tags.items():
        if not 1 <= len(name) <= 128 or len(value) > 256:
            raise SqsError(INVALID_PARAMETER, "A tag key has 1 to 128 characters, its value at most 256.")


def untag_queue(call: Call, asked: shapes.UntagQueue) -> MaybeFuture[None]:
    queue = call.queue(asked.queue_url)
    if not asked.tag_keys:
        raise SqsError(INVALID_PARAMETER, "Tag keys must be between 1 and 128 characters in length.")
    gone = set(asked.tag_keys)
    return _change(
        call, queue, tags={name: value for name, value in queue.record.tags.items() if name not in gone}
    )


def list_queue_tags(call: Call, asked: shapes.Asked) -> dict[str, Any]:
    tags = call.queue(asked.queue_url).record.tags
    return {"Tags": tags} if tags else {}


_MOST_ACTIONS: Final = 7
# The actions that other accounts can be permitted, and those of the owner only.
_PERMITTED: Final = frozenset(
    [
        "*",
        "ChangeMessageVisibility",
        "DeleteMessage",
        "GetQueueAttributes",
        "GetQueueUrl",
        "ListDeadLetterSourceQueues",
        "PurgeQueue",
        "ReceiveMessage",
        "SendMessage",
    ]
)
_OF_OWNER: Final = frozenset(
    [
        "AddPermission",
        "CreateQueue",
        "DeleteQueue",
        "ListQueues",
        "ListQueueTags",
        "RemovePermission",
        "SetQueueAttributes",
        "TagQueue",
        "UntagQueue",
    ]
)


def add_permission(call: Call, asked: shapes.AddPermission) -> MaybeFuture[None]:
    """Adds a statement to the Policy of a queue, which is shown and has no effect."""
    queue = call.queue(asked.queue_url)
    label = asked.label
    if not label:
        raise missing("Label")
    if not asked.actions:
        raise missing("Actions")
    if len(asked.actions) > _MOST_ACTIONS:
        raise SqsError(
            OVER_LIMIT,
            f"{len(asked.actions)} Actions were found, maximum allowed is {_MOST_ACTIONS}.",
        )
    for action in asked.actions:
        _check_action(action)
    if not asked.accounts:
        raise invalid("[]", "PrincipalId", "Unable to verify.")
    policy = _policy(call, queue)
    if any(statement.get("Sid") == label for statement in policy["Statement"]):
        raise invalid(label, "Label", "Already exists.")
    arns = [f"arn:aws:iam::{account}:root" for account in asked.accounts]
    actions = [f"SQS:{action}" for action in asked.actions]
    policy["Statement"].append(
        {
            "Sid": label,
            "Effect": "Allow",
            "Principal": {"AWS": arns[0] if len(arns) == 1 else arns},
            "Action": actions[0] if len(actions) == 1 else actions,
            "Resource": call.arn(queue.name),
        }
    )
    return _set_policy(call, queue, policy)


def _check_action(action: str) -> None:
    if action in _OF_OWNER:
        raise invalid(f"SQS:{action}", "ActionName", "Only the queue owner is allowed to invoke this action.")
    if action not in _PERMITTED:
        raise invalid(
            f"SQS:{action}",
            "ActionName",
            "Please refer to the appropriate WSDL for a list of valid actions. ",
        )


def remove_permission(call: Call, asked: shapes.RemovePermission) -> MaybeFuture[None]:
    queue = call.queue(asked.queue_url)
    if not asked.label:
        raise missing("Label")
    policy = _policy(call, queue)
    left = [statement for statement in policy["Statement"] if statement.get("Sid") != asked.label]
    if len(left) == len(policy["Statement"]):
        raise invalid(asked.label, "Label", "can't find label on existing policy.")
    policy["Statement"] = left
    return _set_policy(call, queue, policy)


def _policy(call: Call, queue: SqsQueue) -> dict[str, Any]:
    text = queue.record.attributes.get("Policy")
    found = queue_attributes.document("Policy", text) if text is not None else {}
    statements = found.get("Statement", [])
    return {
        "Version": "2012-10-17",
        "Id": f"{call.arn(queue.name)}/SQSDefaultPolicy",
        **found,
        "Statement": [each for each in statements if isinstance(each, dict)]
        if isinstance(statements, list)
        else [],
    }


def _set_policy(call: Call, queue: SqsQueue, policy: dict[str, Any]) -> MaybeFuture[None]:
    attributes = dict(queue.record.attributes)
    if policy["Statement"]:
        attributes["Policy"] = msgspec.json.encode(policy).decode()
    else:
        attributes.pop("Policy", None)
    return _change(call, queue, attributes=attributes)


# -- everything in a queue -------------------------------------------------------------------------


def purge_queue(call: Call, asked: shapes.Asked) -> MaybeFuture[None]:
    return without_result(_purge(call.engine, call.queue(asked.queue_url).name))


def delete_queue(call: Call, asked: shapes.Asked) -> MaybeFuture[None]:
    """Removes the jobs of a queue, and what makes it one of SQS. Its name is forgotten when it is idle."""
    name = call.queue(asked.queue_url).name
    engine = call.engine

    def configured(_: object) -> MaybeFuture[Any]:
        return _purge(engine, name)

    before = engine.queue_settings(name).attributes
    unset = engine.configure(name, queue_attributes.without_record(before))
    return without_result(then(unset, configured))


def _purge(engine: EngineView, name: str) -> MaybeFuture[Any]:
    return engine.purge(Filter(queues=frozenset({name})), False)
