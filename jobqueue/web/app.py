"""make_app: the whole API as a Tornado application."""

from tornado.web import Application

from jobqueue.engine.api import Engine
from jobqueue.engine.local import LocalEngine
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.handlers import OperationHandler


def make_app(engine: Engine | None = None) -> Application:
    """A `tornado.web.Application` over `engine`; without one over a new `LocalEngine` with defaults and the
    system's clock. Touches no loop and reads no environment."""
    return application(Dispatcher(engine or LocalEngine()))


def application(api: Dispatcher) -> Application:
    """One handler for every path: the routes are `Dispatcher`'s, so that each front finds the same ones."""
    return Application(
        [(r".*", OperationHandler, {"api": api})],
        log_function=_no_log,
        xsrf_cookies=False,
        compress_response=False,
    )


def _no_log(_: object) -> None:
    """Whoever serves keeps the access log."""
