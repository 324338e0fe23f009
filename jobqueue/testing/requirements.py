"""What the test kit needs: the server."""

from importlib.util import find_spec
from typing import Final

_NEEDED: Final = ("tornado", "prometheus_client", "cronsim")


def check_server() -> None:
    """Raises `ModuleNotFoundError` if the packages of the server are not installed."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"jobqueue.testing runs the real server, and {' and '.join(missing)} is missing: "
            "pip install 'jobqueue-http[server]'",
            name=missing[0],
        )
