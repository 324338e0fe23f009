"""Patterns and ranges of field values, for the checks of the readers and for the OpenAPI document."""

QUEUE_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}"
# type/subtype and parameters (RFC 9110, 8.3), limited to characters that an HTTP header may hold.
MEDIA_TYPE = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+/[A-Za-z0-9!#$%&'*+.^_`|~-]+( *;[ -~]*)?"
INT32 = (-(2**31), 2**31 - 1)
