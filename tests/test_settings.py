"""Settings: from keyword arguments, and from an environment that is passed in."""

import os
import re
from math import inf, nan
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue.errors import SettingError
from jobqueue.settings import PREFIX, Settings, is_foreign

from_environment = Settings.from_environment


def test_the_defaults_are_those_of_the_manual():
    s = Settings()
    assert (s.host, s.port, s.http) == ("0.0.0.0", 8080, "auto")
    assert (s.lease, s.lease_max, s.wait_max) == (300_000, 86_400_000, 60_000)
    assert (s.retain, s.retain_jobs, s.retain_bytes) == (3_600_000, 100_000, 64 * 1024**2)
    assert (s.dead_retain, s.dead_jobs, s.dead_bytes) == (604_800_000, 100_000, 256 * 1024**2)
    assert (s.max_attempts, Settings(max_attempts="none").max_attempts) == (25, None)
    assert (s.max_body, s.max_result, s.max_depth, s.max_batch) == (1024**2, 256 * 1024, 64, 1000)
    assert (s.lane_segment, s.compact_above) == (1024, 0.5)
    assert (s.tick, s.drain, s.first_id, s.max_connections) == (100, 4_000, None, None)
    assert (s.log_level, s.log_format, s.access_log, s.require_lease) == ("info", "text", "auto", False)
    assert (s.sqs, s.ui) == ("on", "on")


def test_every_setting_has_a_meaning():
    for name, setting in Settings.declared.items():
        assert name == name.lower()
        assert setting.meaning


def test_settings_may_be_given_as_people_write_them():
    s = Settings(lease="2s", max_body="2MiB", retain=0.5, first_id=1, require_lease=True, compact_above=0.25)
    assert (s.lease, s.max_body, s.retain, s.first_id) == (2_000, 2 * 1024**2, 500, 1)
    assert (s.require_lease, s.compact_above) == (True, 0.25)


def test_two_settings_do_not_share_anything():
    Settings(lease="2s")
    assert Settings().lease == 300_000


def test_settings_are_read_from_an_environment_that_is_passed_in():
    s = from_environment(
        {
            "JOBQUEUE_PORT": "9000",
            "JOBQUEUE_LEASE": "1h30m",
            "JOBQUEUE_WAIT_MAX": "30",
            "JOBQUEUE_RETAIN_BYTES": "1GiB",
            "JOBQUEUE_REQUIRE_LEASE": "TRUE",
            "JOBQUEUE_FIRST_ID": "1",
            "JOBQUEUE_COMPACT_ABOVE": "0.8",
            "JOBQUEUE_HOST": "::",
            "HOME": "/root",
            "PORT": "5000",
            "jobqueue_port": "1",
        }
    )
    assert (s.port, s.lease, s.wait_max, s.retain_bytes) == (9000, 5_400_000, 30_000, 1024**3)
    assert (s.require_lease, s.first_id, s.compact_above, s.host) == (True, 1, 0.8, "::")


def test_no_setting_is_read_from_the_environment_of_the_process(monkeypatch):
    monkeypatch.setenv("JOBQUEUE_PORT", "9000")
    assert os.environ["JOBQUEUE_PORT"] == "9000"
    assert Settings().port == from_environment({}).port == 8080


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("JOBQUEUE_LEASES", "JOBQUEUE_LEASE"),
        ("JOBQUEUE_RETAIN_JOB", "JOBQUEUE_RETAIN_JOBS"),
        ("JOBQUEUE_LOGLEVEL", "JOBQUEUE_LOG_LEVEL"),
        ("JOBQUEUE_MAXBODY", "JOBQUEUE_MAX_BODY"),
        ("JOBQUEUE_PORTS", "JOBQUEUE_PORT"),
        ("JOBQUEUE_LOG", "JOBQUEUE_LOG_LEVEL"),
        pytest.param(
            "JOBQUEUE_lease",
            "JOBQUEUE_LEASE",
        ),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(variable, nearest):
    with pytest.raises(SettingError) as refused:
        from_environment({variable: "1"})
    assert refused.value.detail == f"unknown setting {variable}; did you mean {nearest}?"


def test_the_common_prefix_does_not_make_names_similar():
    with pytest.raises(SettingError, match=r"^unknown setting JOBQUEUE_XYZZY$"):
        from_environment({"JOBQUEUE_XYZZY": "1"})


def test_an_unknown_keyword_is_refused_with_the_nearest_name():
    with pytest.raises(SettingError, match="unknown setting retian; did you mean retain"):
        Settings(retian="5m")


@pytest.mark.parametrize("unknown", ["JOBQUEUE_", "JOBQUEUE_URLS_OF_ALL_KINDS_XYZZY", "JOBQUEUE_PORT_"])
def test_an_unknown_variable_without_a_similar_name_is_refused(unknown):
    with pytest.raises(SettingError, match=f"unknown setting {unknown}"):
        from_environment({unknown: "1"})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("JOBQUEUE_URL", "http://localhost:8080"),
        ("JOBQUEUE_TOKEN", "secret"),
        ("JOBQUEUE_COMPILE", "0"),
        ("JOBQUEUE_DIRECT", "false"),
        ("JOBQUEUE_SERVICE_HOST", "10.0.0.7"),
        ("JOBQUEUE_SERVICE_PORT", "8080"),
        ("JOBQUEUE_SERVICE_PORT_HTTP", "8080"),
        ("JOBQUEUE_PORT", "tcp://10.0.0.7:8080"),
        ("JOBQUEUE_PORT_8080_TCP", "tcp://10.0.0.7:8080"),
        ("JOBQUEUE_PORT_8080_TCP_PROTO", "tcp"),
        ("JOBQUEUE_PORT_8080_TCP_ADDR", "10.0.0.7"),
    ],
)
def test_what_clients_scripts_and_kubernetes_read_is_not_the_servers(variable, value):
    assert from_environment({variable: value}).port == 8080


def test_every_variable_that_a_script_or_a_client_of_ours_reads_may_be_in_the_servers_environment():
    """One file of variables often serves the server, its scripts and its workers."""
    root = Path(__file__).parents[1]
    files = [
        *(root / "scripts").glob("*"),
        *(root / "jobqueue" / "web" / "static").glob("*"),
        root / ".ci" / "run",
    ]
    for name in ("cli", "client", "django", "jobs", "testing", "worker"):
        in_folder = list((root / "jobqueue" / name).rglob("*.py"))
        assert in_folder, name
        files += in_folder
    read = re.compile(r"(?:\$\{?|environ\.get\(\"|environ\[\"|getenv\(\")(JOBQUEUE_[A-Z_]+)")
    found = {name for file in files if file.is_file() for name in read.findall(file.read_text("utf-8"))}
    assert found >= {"JOBQUEUE_COMPILE", "JOBQUEUE_DIRECT", "JOBQUEUE_TOKEN", "JOBQUEUE_URL"}
    for name in found - {f"JOBQUEUE_{setting.upper()}" for setting in Settings.declared}:
        assert is_foreign(name, "x"), name


BAD = [
    ("port", "http"),
    ("port", "-1"),
    ("port", "65536"),
    ("port", "8080.0"),
    ("port", "80 80"),
    ("port", "udp://10.0.0.7:8080"),
    ("port", ""),
    ("port", "٨٠٨٠"),
    ("port", "9" * 5_000),
    ("host", ""),
    ("host", "local host"),
    ("http", "Fast"),
    ("lease", "soon"),
    ("lease", "0s"),
    ("lease", "999ms"),
    ("lease", "25h"),
    ("lease", "-5m"),
    ("lease", ""),
    ("lease_max", "24h1ms"),
    ("wait_max", "1h1s"),
    ("retain", "366d"),
    ("retain_jobs", "many"),
    ("retain_jobs", "1e5"),
    ("retain_bytes", "64MB"),
    ("retain_bytes", "2000GiB"),
    ("max_body", "1B"),
    ("max_result", "-1"),
    ("max_depth", "0"),
    ("max_batch", "0"),
    ("max_attempts", "0"),
    ("max_attempts", "10001"),
    ("max_attempts", "null"),
    ("dead_retain", "366d"),
    ("dead_jobs", "-1"),
    ("dead_bytes", "1MB"),
    ("max_connections", "0"),
    ("lane_segment", "15"),
    ("lane_spare", "-1"),
    ("compact_above", "0.05"),
    ("compact_above", "1"),
    ("compact_above", "nan"),
    ("compact_above", "inf"),
    ("compact_above", "half"),
    ("tick", "9ms"),
    ("tick", "11s"),
    ("drain", "2h"),
    ("first_id", "0"),
    ("first_id", str(2**53)),
    ("require_lease", "yes"),
    ("require_lease", ""),
    ("log_level", "INFO"),
    ("log_format", "xml"),
    ("access_log", "some"),
    ("access_token", "too short"),
    ("access_token", "a space is not allowed here"),
    ("access_token", ""),
    ("tokens_file", ""),
    ("tokens_file", "a\nb"),
    ("open_admin", "yes"),
    ("sync_leases", "yes"),
    ("data", ""),
    ("advertise", "a:b:1"),
    ("advertise", "a:65536"),
    ("advertise_url", ""),
    ("advertise_url", "a:8080"),
    ("advertise_url", "unix:/run/jobqueue"),
    ("advertise_url", "http://a/?b"),
    ("advertise_url", "http://a:65536"),
    ("advertise_url", "http://a\r\nB: c"),
    ("shards", "65"),
    ("sync", "never"),
    ("sync_interval", "0s"),
    ("metrics_queues", "10001"),
    ("sqs", "yes"),
    ("ui", "true"),
    ("max_headers", "2MiB"),
    ("max_jobs", "0"),
    ("max_queues", "0"),
    ("max_waiters", "0"),
    ("max_schedules", "-1"),
    ("memory_limit", "1MiB"),
    ("max_connections_by_address", "0"),
    ("head_timeout", "0s"),
    ("body_timeout", "2h"),
    ("idle_timeout", "25h"),
    ("write_timeout", "0"),
    ("rate", "0"),
    ("tls_cert", ""),
    ("tls_key", ""),
    ("tls_client_ca", ""),
    ("allowed_hosts", "a b"),
    ("allowed_origins", "app.example.com"),
    ("trusted_proxies", "proxy"),
    ("trusted_proxies", "10.0.0.1/8"),
]


def test_a_url_for_clients_has_no_password():
    with pytest.raises(SettingError, match="must be the URL of this server") as refused:
        from_environment({"JOBQUEUE_ADVERTISE_URL": "http://me:secret@a"})
    assert "secret" not in refused.value.detail


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_refused_with_its_variable(name, value):
    variable = PREFIX + name.upper()
    with pytest.raises(SettingError) as refused:
        from_environment({variable: value})
    shown = "…" if Settings.declared[name].secret else value[:40]
    assert refused.value.detail.startswith(f"{variable}={shown}: ")
    assert refused.value.detail.count("\n") == shown.count("\n")
    assert len(refused.value.detail) < 200
    with pytest.raises(SettingError, match=variable):
        Settings(**{name: value})


def test_every_setting_refuses_some_value():
    assert {name for name, _ in BAD} == set(Settings.declared)


@pytest.mark.parametrize("name", Settings.declared)
@pytest.mark.parametrize("value", [nan, inf, -1, b"1", object, 1j], ids=repr)
def test_no_setting_accepts_a_value_that_nobody_would_write(name, value):
    with pytest.raises(SettingError, match=PREFIX + name.upper()):
        Settings(**{name: value})


@pytest.mark.parametrize(
    "name", ["port", "lane_segment", "max_batch", "first_id", "retain_bytes", "lease", "tick"]
)
def test_a_boolean_is_not_a_number(name):
    with pytest.raises(SettingError, match=PREFIX + name.upper()):
        Settings(**{name: True})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("require_lease", []),
        pytest.param(
            "compact_above",
            10**400,
            id="compact_above-10**400",
        ),
        pytest.param(
            "lease",
            10**400,
            id="lease-10**400",
        ),
        pytest.param("max_body", 10**400, id="max_body-10**400"),
        pytest.param("port", 10**400, id="port-10**400"),
    ],
)
def test_a_huge_value_is_refused(name, value):
    with pytest.raises(SettingError, match=PREFIX + name.upper()):
        Settings(**{name: value})


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [
        ("port", 0, 65_535),
        ("lane_segment", 16, 65_536),
        ("lane_spare", 0, 1_024),
        ("max_depth", 1, 500),
        ("first_id", 1, 2**53 - 1),
        ("lease", "1s", "24h"),
        ("tick", "10ms", "10s"),
        ("wait_max", "0s", "1h"),
        ("compact_above", 0.1, 0.95),
    ],
)
def test_both_ends_of_a_range_are_accepted(name, lowest, highest):
    for value in (lowest, highest):
        Settings(**{name: value})
        from_environment({PREFIX + name.upper(): str(value)})


@pytest.mark.parametrize(
    ("written", "value"),
    [("true", True), ("1", True), ("True", True), ("false", False), ("0", False), ("FALSE", False)],
)
def test_a_boolean_is_read(written, value):
    assert from_environment({"JOBQUEUE_REQUIRE_LEASE": written}).require_lease is value


def test_the_default_lease_may_not_be_longer_than_the_longest():
    with pytest.raises(SettingError, match="JOBQUEUE_LEASE is longer than JOBQUEUE_LEASE_MAX"):
        Settings(lease="10m", lease_max="5m")
    assert Settings(lease="5m", lease_max="5m").lease == 300_000


def test_the_repr_of_settings_has_no_secret():
    assert "lease=2000" in repr(Settings(lease="2s"))
    settings = Settings(access_token="0123456789abcdef")
    assert "0123456789abcdef" not in f"{settings!r} {vars(settings)}"
    assert "access_token" not in repr(settings)


@settings(deadline=None, derandomize=True)
@given(st.sampled_from(sorted(Settings.declared)), st.text(max_size=20))
def test_any_environment_gives_settings_or_a_refusal_that_names_the_variable(name, value):
    variable = PREFIX + name.upper()
    refusal = None
    try:
        from_environment({variable: value})
    except SettingError as refused:
        refusal = refused.detail
    assert refusal is None or variable in refusal
