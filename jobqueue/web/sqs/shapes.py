"""What each action takes. All fields are optional here: operations check them in the words of AWS."""

from msgspec import Struct, field


class MessageAttribute(Struct, rename="pascal", omit_defaults=True):
    """One attribute of a message. A `data_type` may have a label, as in `Number.int`."""

    data_type: str | None = None
    string_value: str | None = None
    binary_value: bytes | None = None


class Envelope(Struct, omit_defaults=True, rename={"attributes": "a", "trace": "t"}):
    """What a job keeps of a message beside its body: its attributes, and its AWSTraceHeader."""

    attributes: dict[str, MessageAttribute] = {}
    trace: str | None = None


class Asked(Struct, rename="pascal"):
    """The parameters of an action. `queue_url` is that of the body, or of the path of the request."""

    queue_url: str | None = None


class CreateQueue(Asked):
    queue_name: str | None = None
    attributes: dict[str, str | None] | None = None
    tags: dict[str, str] | None = field(name="tags", default=None)
    other_tags: dict[str, str] | None = field(name="Tags", default=None)


class GetQueueUrl(Asked):
    queue_name: str | None = None


class Listed(Asked):
    queue_name_prefix: str | None = None
    next_token: str | None = None
    max_results: int | None = None


class GetQueueAttributes(Asked):
    attribute_names: list[str] | None = None


class SetQueueAttributes(Asked):
    attributes: dict[str, str | None] | None = None


class TagQueue(Asked):
    tags: dict[str, str] | None = None


class UntagQueue(Asked):
    tag_keys: list[str] | None = None


class AddPermission(Asked):
    label: str | None = None
    accounts: list[str] | None = field(name="AWSAccountIds", default=None)
    actions: list[str] | None = None


class RemovePermission(Asked):
    label: str | None = None


class Message(Asked):
    """One message to be sent. `id` is that of an entry of a batch."""

    id: str | None = None
    message_body: str | None = None
    delay_seconds: int | None = None
    message_attributes: dict[str, MessageAttribute] | None = None
    message_system_attributes: dict[str, MessageAttribute] | None = None
    message_deduplication_id: str | None = None
    message_group_id: str | None = None


class SendMessageBatch(Asked):
    entries: list[Message] | None = None


class ReceiveMessage(Asked):
    attribute_names: list[str] | None = None
    message_system_attribute_names: list[str] | None = None
    message_attribute_names: list[str] | None = None
    max_number_of_messages: int | None = None
    visibility_timeout: int | None = None
    wait_time_seconds: int | None = None


class Delete(Asked):
    """A receipt of a message that is to be deleted."""

    id: str | None = None
    receipt_handle: str | None = None


class DeleteMessageBatch(Asked):
    entries: list[Delete] | None = None


class ChangeVisibility(Asked):
    """A receipt of a message that is to be visible after a time."""

    id: str | None = None
    receipt_handle: str | None = None
    visibility_timeout: int | None = None


class ChangeMessageVisibilityBatch(Asked):
    entries: list[ChangeVisibility] | None = None


class StartMessageMoveTask(Asked):
    source_arn: str | None = None
    destination_arn: str | None = None
    max_number_of_messages_per_second: int | None = None


class ListMessageMoveTasks(Asked):
    source_arn: str | None = None
    max_results: int | None = None


class CancelMessageMoveTask(Asked):
    task_handle: str | None = None
