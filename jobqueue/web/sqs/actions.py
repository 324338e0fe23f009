"""The table of actions: what each takes, the right that it needs, and what performs it."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from jobqueue.web.routes import ADMIN, ANY_TOKEN, DEQUEUE, ENQUEUE, READ
from jobqueue.web.sqs import moves, queues, receipts, receive, send, shapes


class Action(NamedTuple):
    """`right`: that of an access token. `perform` takes the call and its parameters, which have the type
    `shape`. `is_open`: without access tokens everybody may do it, although it needs the right `admin`."""

    right: str
    shape: type
    perform: Callable[..., Any]
    is_open: bool = False


# SDKs and frameworks create the queues that they use, so that needs no more than the right to enqueue.
ACTIONS: Final = {
    "CreateQueue": Action(ENQUEUE, shapes.CreateQueue, queues.create_queue),
    "GetQueueUrl": Action(ANY_TOKEN, shapes.GetQueueUrl, queues.get_queue_url),
    "ListQueues": Action(READ, shapes.Listed, queues.list_queues),
    "DeleteQueue": Action(ADMIN, shapes.Asked, queues.delete_queue),
    "PurgeQueue": Action(ADMIN, shapes.Asked, queues.purge_queue),
    "GetQueueAttributes": Action(READ, shapes.GetQueueAttributes, queues.get_queue_attributes),
    "SetQueueAttributes": Action(ADMIN, shapes.SetQueueAttributes, queues.set_queue_attributes, True),
    "TagQueue": Action(ADMIN, shapes.TagQueue, queues.tag_queue, True),
    "UntagQueue": Action(ADMIN, shapes.UntagQueue, queues.untag_queue, True),
    "ListQueueTags": Action(READ, shapes.Asked, queues.list_queue_tags),
    "AddPermission": Action(ADMIN, shapes.AddPermission, queues.add_permission, True),
    "RemovePermission": Action(ADMIN, shapes.RemovePermission, queues.remove_permission, True),
    "SendMessage": Action(ENQUEUE, shapes.Message, send.send_message),
    "SendMessageBatch": Action(ENQUEUE, shapes.SendMessageBatch, send.send_message_batch),
    "ReceiveMessage": Action(DEQUEUE, shapes.ReceiveMessage, receive.receive_message),
    "DeleteMessage": Action(DEQUEUE, shapes.Delete, receipts.delete_message),
    "DeleteMessageBatch": Action(DEQUEUE, shapes.DeleteMessageBatch, receipts.delete_message_batch),
    "ChangeMessageVisibility": Action(DEQUEUE, shapes.ChangeVisibility, receipts.change_message_visibility),
    "ChangeMessageVisibilityBatch": Action(
        DEQUEUE, shapes.ChangeMessageVisibilityBatch, receipts.change_message_visibility_batch
    ),
    "ListDeadLetterSourceQueues": Action(READ, shapes.Listed, queues.list_dead_letter_source_queues),
    "StartMessageMoveTask": Action(ADMIN, shapes.StartMessageMoveTask, moves.start_message_move_task),
    "ListMessageMoveTasks": Action(READ, shapes.ListMessageMoveTasks, moves.list_message_move_tasks),
    "CancelMessageMoveTask": Action(ADMIN, shapes.CancelMessageMoveTask, moves.cancel_message_move_task),
}
