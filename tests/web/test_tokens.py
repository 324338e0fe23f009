"""The file of access tokens, and `python -m jobqueue token`."""

import subprocess
import sys
import tomllib

import pytest

from jobqueue.errors import SettingError
from jobqueue.web.access.tokens import Token, digest_of, make_token, read_tokens

DIGEST = digest_of("one")
LINES = f'digest = "{DIGEST}"\nrights = ["read"]\n'


def read(tmp_path, text, reserved=frozenset()):
    path = tmp_path / "tokens.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_tokens(str(path), reserved)


def test_a_token_has_rights_and_optionally_queues_and_an_expiry(tmp_path):
    text = f"""
        [web]
        digest = "{DIGEST}"
        rights = ["enqueue", "read"]
        queues = ["mail", "thumbs-*"]
        expires_at = 2027-01-01T01:00:00.000123456+01:00

        ["ops.1"]
        digest = "{digest_of("two")}"
        rights = ["admin"]
    """
    assert read(tmp_path, text) == [
        Token("web", bytes.fromhex(DIGEST), ("enqueue", "read"), ("mail", "thumbs-*"), 1_798_761_600_000),
        Token("ops.1", bytes.fromhex(digest_of("two")), ("admin",)),
    ]


def test_an_empty_file_of_tokens_admits_nobody(tmp_path):
    assert read(tmp_path, "") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[web", "Expected"),
        (b"\xff", "decode"),
        ("web = 1", "must be a table"),
        (f'["a b"]\n{LINES}', "a name is"),
        (f"[taken]\n{LINES}", "none that is taken"),
        (f"[web]\n{LINES}token = 1", "unknown token"),
        ('[web]\nrights = ["read"]', "digest must be"),
        (f'[web]\ndigest = "{DIGEST.upper()}"\nrights = ["read"]', "digest must be"),
        (f'[web]\ndigest = "{DIGEST}"', "rights must be"),
        (f'[web]\ndigest = "{DIGEST}"\nrights = []', "rights must be"),
        (f'[web]\ndigest = "{DIGEST}"\nrights = "read"', "rights must be"),
        (f'[web]\ndigest = "{DIGEST}"\nrights = ["write"]', "rights must be"),
        (f"[web]\n{LINES}queues = []", "queues must be"),
        (f'[web]\n{LINES}queues = ["a[b]"]', "queues must be"),
        (f"[web]\n{LINES}queues = [1]", "queues must be"),
        (f"[web]\n{LINES}expires_at = 2027-01-01T00:00:00", "with an offset"),
        (f"[web]\n{LINES}expires_at = 2027-01-01", "with an offset"),
        (f'[web]\n{LINES}expires_at = "soon"', "with an offset"),
        (f'[web]\n{LINES}sqs_secret = "too short"', "sqs_secret must be"),
        (f"[web]\n{LINES}sqs_secret = 1", "sqs_secret must be"),
        (f"[web]\n{LINES}[again]\n{LINES}", "digest of web"),
    ],
)
def test_an_invalid_file_is_refused_with_the_reason(tmp_path, text, said):
    with pytest.raises(SettingError, match=said) as refused:
        read(tmp_path, text, {"taken"})
    assert refused.value.detail.startswith(f"JOBQUEUE_TOKENS_FILE={tmp_path}/tokens.toml: ")
    assert "\n" not in refused.value.detail


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SettingError, match="No such file"):
        read_tokens(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("pattern", "queue", "good"),
    [
        ("mail", "mail", True), ("mail", "mails", False), ("mail", "amail", False), ("mail", "Mail", False),
        ("thumbs-*", "thumbs-1", True), ("thumbs-*", "thumbs-", True), ("thumbs-*", "thumbs", False),
        ("*", "anything", True), ("a?c", "abc", True), ("a?c", "ac", False), ("a.c", "abc", False),
    ],
)  # fmt: skip
def test_queue_patterns_match_whole_names(pattern, queue, good):
    assert Token("t", b"", ("read",), ("other", pattern)).matches(queue) is good


def test_new_tokens_differ():
    made = {make_token() for _ in range(100)}
    assert len(made) == 100
    assert all(len(token) == 46 and token.startswith("jq_") for token in made)


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "jobqueue", "token", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_program_makes_a_token():
    status, token, said = run()
    assert (status, said, token.count("\n")) == (0, "", 1)
    assert token.startswith("jq_")


def test_the_program_makes_lines_for_the_file(tmp_path):
    status, lines, said = run("web", "enqueue,read", "mail,thumbs-*")
    assert status == 0
    token = said.split()[-1]
    assert token not in lines
    assert tomllib.loads(lines) == {
        "web": {"digest": digest_of(token), "rights": ["enqueue", "read"], "queues": ["mail", "thumbs-*"]}
    }
    assert [t.name for t in read(tmp_path, lines)] == ["web"]


def test_the_program_makes_a_secret_for_aws_sdks(tmp_path):
    status, lines, said = run("--sqs", "web", "enqueue")
    assert status == 0
    [token] = read(tmp_path, lines)
    assert (token.name, len(token.sqs_secret)) == ("web", 40)
    assert f"AWS_ACCESS_KEY_ID=web AWS_SECRET_ACCESS_KEY={token.sqs_secret}" in said
    assert run("--sqs")[0] == 2


def test_the_rights_are_those_of_a_client_unless_said():
    assert tomllib.loads(run("web")[1])["web"]["rights"] == ["enqueue", "dequeue", "read"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("a b",),
        ("--secret",),
        ("web", "write"),
        ("web", "read", "q", "more"),
        ("",),
        ("access-token",),
        ("web", "read", "no queue!"),
    ],
)
def test_bad_arguments_of_the_token_command_are_refused(arguments):
    status, lines, said = run(*arguments)
    assert (status, lines, said.count("\n")) == (2, "", 1)
    assert said.startswith("jobqueue: ")
