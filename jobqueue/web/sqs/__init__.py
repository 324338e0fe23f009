"""The protocols of SQS: AWS SDKs send, receive and delete jobs as messages of Amazon SQS (docs/sqs.md)."""
