"""`jobqueue schedules …`"""

import json

import pytest

from jobqueue.cli.main import main
from jobqueue.cli.schedules import ACTIONS


def test_a_schedule_is_put_shown_paused_run_and_deleted(cli):
    made = cli(
        "schedules", "put", "report", "make_report", "full:=true", "to=ada", "--cron", "30 2 * * *",
        "--tz", "Europe/Berlin", "--overlap", "skip", "--jitter", "30s", "-q", "reports", "--priority", "3",
    ).json  # fmt: skip
    assert (made["name"], made["means"], made["timezone"], made["jitter"]) == (
        "report", "At 02:30 every day", "Europe/Berlin", 30,
    )  # fmt: skip
    assert made["job"] == {
        "type": "make_report", "queue": "reports", "priority": 3, "payload": {"full": True, "to": "ada"}
    }  # fmt: skip
    assert cli("schedules", "show", "report").json["etag"] == '"1"'
    assert cli("schedules", "pause", "report", "--reason", "deploy").json["pause"]["reason"] == "deploy"
    assert cli("schedules", "resume", "report").json["paused"] is False
    assert cli("schedules", "run", "report").json["type"] == "make_report"
    [entry] = cli("schedules", "history", "report").items
    assert entry["outcome"] == "manual"
    text = cli("schedules", "history", "report", "--text").out
    assert text.splitlines()[0].split() == ["DUE", "OUTCOME", "JOB", "REASON"]
    explained = cli("schedules", "explain", "report").json
    assert [reason["code"] for reason in explained["reasons"]] == ["overlap"]
    text = cli("schedules", "explain", "report", "--text").out.splitlines()
    assert text[0] == "report"
    assert text[1] == explained["reasons"][0]["detail"]
    assert text[2].startswith("its next instant is 2")
    assert cli("schedules", "delete", "report").json["name"] == "report"
    gone = cli("schedules", "show", "report")
    assert (gone.status, gone.out) == (3, "")
    assert "schedule_not_found" in gone.err


def test_a_list_is_a_table_or_lines_that_can_be_imported(cli, home):
    cli("schedules", "put", "a", "x", "--every", "15m", "-g", "listed")
    cli("schedules", "put", "b", "y", "--every", "1h", "-g", "listed", "--misfire", "all")
    table = cli("schedules", "--text", "-g", "listed").out.splitlines()
    assert [line.split()[0] for line in table] == ["SCHEDULE", "a", "b"]
    exported = cli("schedules", "export", "-g", "listed")
    assert [json.loads(line)["name"] for line in exported.out.splitlines()] == ["a", "b"]
    assert cli("schedules", "list", "-g", "listed").out == exported.out
    cli("schedules", "delete", "a")
    done = cli("schedules", "import", "-", input=exported.out).json
    assert done == {"created": ["a"], "changed": [], "unchanged": ["b"], "deleted": []}
    (home / "schedules.ndjson").write_text(exported.out)
    assert cli("schedules", "import", "schedules.ndjson", "--text").out == "unchanged a\nunchanged b\n"


def test_a_preview_says_what_an_expression_means(cli):
    shown = cli("schedules", "preview", "0 9 * * MON-FRI", "--tz", "America/New_York")
    assert shown.json["means"] == "At 09:00 on Monday through Friday"
    text = cli("schedules", "preview", "@daily", "--text").out.splitlines()
    assert len(text) == 6
    assert all(line.endswith("T00:00:00Z") for line in text[1:])
    bad = cli("schedules", "preview", "x")
    assert (bad.status, bad.out) == (1, "")


def test_what_a_program_declares_is_synchronized(cli, home):
    (home / "shop.py").write_text(
        "from jobqueue import Jobs\n"
        "jobs = Jobs()\n"
        '@jobs.cron("30 2 * * *", timezone="Europe/Berlin")\n'
        "def report() -> None: ...\n"
    )
    cli("schedules", "put", "old", "x", "--every", "15m", "-g", "shop")
    arguments = ("schedules", "sync", "shop:jobs", "--group", "shop")
    expected = {"created": ["report"], "changed": [], "unchanged": [], "deleted": ["old"]}
    dry = cli(*arguments, "--dry-run")
    assert (dry.json, "nothing was changed" in dry.err) == (expected, True)
    assert cli(*arguments).json == expected
    assert [each["name"] for each in cli("schedules", "-g", "shop").items] == ["report"]


def test_wrong_arguments_are_named(cli, home):
    for arguments, said in (
        (("put",), "needs an argument"), (("put", "a"), "TYPE"), (("run", "a", "b"), "run takes no b;"),
        (("sync", "shop:jobs"), "--group"), (("sync", "nothing:jobs", "-g", "g"), "cannot load"),
        (("frobnicate",), "invalid choice"), (("list", "a"), "list takes no a;"),
        (("import", "a", "b"), "import takes no b;"), (("put", "a", "x", "--dry-run"), "put takes no --dry-run"),
        (("preview",), "--every"), (("preview", "@daily", "--every", "1h"), "--every"),
        (("export", "--text"), "export takes no --text"),
    ):  # fmt: skip
        done = cli("schedules", *arguments)
        assert (done.status, done.out) == (2, "")
        assert said in done.err


# The options that not every action takes, by those that take them.
OPTIONS = {
    "list": {"--queue", "--group"},
    "export": {"--queue", "--group"},
    "pause": {"--reason"},
    "sync": {"--group", "--dry-run"},
    "preview": {"--cron", "--every", "--timezone", "--starts-at", "--ends-at"},
    "put": {
        "--cron", "--every", "--timezone", "--misfire", "--grace", "--overlap", "--jitter", "--starts-at",
        "--ends-at", "--queue", "--priority", "--group",
    },
}  # fmt: skip


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_takes_its_own_options_only(capfd, action):
    """`delete` with `--dry-run` would delete."""
    given = {"list": (), "export": (), "put": ("a", "x"), "import": ("/dev/null",)}.get(action, ("a",))
    for option in sorted(set().union(*OPTIONS.values()) - OPTIONS.get(action, set())):
        values = () if option == "--dry-run" else ("1",)
        assert main(["schedules", action, *given, option, *values, "--url", "http://127.0.0.1:1"]) == 2
        said = capfd.readouterr().err
        assert said.startswith(f"jobqueue: schedules {action} takes no {option}; ")


def test_a_schedule_is_not_deleted_by_a_dry_run(cli):
    cli("schedules", "put", "kept", "x", "--every", "15m")
    assert cli("schedules", "delete", "kept", "--dry-run").status == 2
    assert cli("schedules", "show", "kept").json["name"] == "kept"


def test_an_interval_has_a_preview(cli):
    assert cli("schedules", "preview", "--every", "15m").json["means"] == "Every 15 minutes"


@pytest.mark.parametrize("line", [b"[1]", b"7", b"{", b'"\xff"'])
def test_a_line_that_is_no_schedule_is_named(cli, line):
    done = cli("schedules", "import", input=b'{"name":"a"}\n' + line + b"\n")
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert "line 2 is not a schedule: " in done.err
