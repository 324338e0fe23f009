"""The model with restarts (test_restart_model.py), whose rows are in a PostgreSQL database between two servers."""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from postgres_server import needs_postgres
from test_restart_model import VerbsAndRestarts
from test_verbs_model import THOROUGH

from jobqueue.storage.postgres import PostgresStore

pytestmark = needs_postgres


@pytest.fixture
def machine(postgres, database):
    """The model, on a database of its own that its runs share."""

    class OnPostgres(VerbsAndRestarts):
        def stored(self, rows):
            store = PostgresStore(postgres.url(database), 0)
            gone = [(key, None) for some in store.load(50, 1 << 20) for key, _ in some if key]
            store.commit([*gone, *rows[: len(rows) // 2]])
            store.commit([*rows[len(rows) // 2 :], *rows[:1]])
            store.close()
            store = PostgresStore(postgres.url(database), 0)
            found = [row for some in store.load(3, 500) for row in some]
            store.close()
            return found

    return OnPostgres


def test_a_restart_on_a_database_changes_nothing_that_a_client_could_see(machine):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25 if THOROUGH else 8, stateful_step_count=40 if THOROUGH else 20, deadline=None,
            derandomize=True, print_blob=True, database=None,
        ),
    )  # fmt: skip
