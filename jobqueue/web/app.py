"""make_app: the whole API as a Tornado application."""

from tornado.web import Application

from jobqueue.engine.api import Engine
from jobqueue.engine.local import LocalEngine
from jobqueue.web.api import Api
from jobqueue.web.handlers import OperationHandler


def make_app(engine: Engine | None = None) -> Application:
    """A `tornado.web.Application` over `engine`; without one over a new `LocalEngine` with defaults and the
    system's clock. Touches no loop and reads no environment."""
    return application(Api(engine or LocalEngine()))


def application(api: Api) -> Application:
    """One handler for every path: the routes are `Api`'s, so that each front finds the same ones."""
    return Application(
        [(r".*", OperationHandler, {"api": api})],
        log_function=_no_log,
        xsrf_cookies=False,
        compress_response=False,
    )


def _no_log(_: object) -> None:
    """Whoever serves keeps the access log."""
