"""A real Prometheus, set up as docs/metrics.md says, scrapes the real program and takes its rules."""

import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import yaml
from running import ROOT, Program, until

# Alerts that a slow or busy machine may cause.
OF_THE_MACHINE = {"JobqueueLoopStalls", "JobqueueDiskSlow"}
TOKEN = "only-for-this-test-0123456789"
pytestmark = [
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed"),
    pytest.mark.skipif(os.environ.get("TEST_ALL") != "1", reason="takes seconds: with TEST_ALL=1"),
]


class Prometheus:
    """Runs for the length of a `with`."""

    def __init__(self, folder: Path, config: object) -> None:
        file = folder / "prometheus.yml"
        file.write_text(json.dumps(config))
        self._log: list[str] = []
        self._process = subprocess.Popen(
            [
                "prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'prometheus'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)

    def _read(self):
        self._log.extend(self._process.stderr)

    def __enter__(self):
        self._reader.start()
        until(lambda: self._says("Server is ready") or self._process.poll() is not None, 30)
        assert self._says("Server is ready"), self._log
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stderr.close()

    def _says(self, pattern):
        return re.search(pattern, "".join(self._log))

    def get(self, path):
        address = self._says(r'"Listening on" address=(\S+)')[1]
        with urlopen(f"http://{address}/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        """The value of each series, by instance."""
        found = self.get(f"query?query={quote(expression)}")["result"]
        return {each["metric"]["instance"]: each["value"][1] for each in found}


def documented(targets):
    """The example of docs/metrics.md, with these servers as targets."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["localhost:8080"]}]
    assert list(job["authorization"]) == ["credentials"]
    job["static_configs"] = [{"targets": targets}]
    job["authorization"]["credentials"] = TOKEN
    assert config["rule_files"] == ["alerts.yml"]
    config["rule_files"] = [str(ROOT / "deploy" / "alerts.yml")]
    config["global"] = {"scrape_interval": "250ms", "evaluation_interval": "250ms"}
    return config


def instances(rule):
    """The instances that a rule has alerts for."""
    return {alert["labels"]["instance"] for alert in rule["alerts"]}


def test_prometheus_scrapes_it_with_and_without_a_journal_and_access_tokens(tmp_path):
    servers = {
        "memory": Program(JOBQUEUE_FIRST_ID="1"),
        "journal": Program(JOBQUEUE_DATA=str(tmp_path / "journal"), JOBQUEUE_ACCESS_TOKEN=TOKEN),
        "tornado": Program(JOBQUEUE_HTTP="tornado", JOBQUEUE_ACCESS_TOKEN=TOKEN),
        "shut": Program(JOBQUEUE_ACCESS_TOKEN=TOKEN + "-another"),
    }
    with servers["memory"], servers["journal"], servers["tornado"], servers["shut"]:
        at = {name: f"127.0.0.1:{server.port}" for name, server in servers.items()}
        for name, server in servers.items():
            if name != "shut":
                assert (
                    server.call("POST", "/jobs/enqueue", {"type": "t"}, Authorization=f"Bearer {TOKEN}")[0]
                    == 201
                )
        with Prometheus(tmp_path, documented(list(at.values()))) as prometheus:
            until(lambda: len(prometheus.query("up")) == len(at), 30)
            assert prometheus.query("up") == {at[name]: "01"[name != "shut"] for name in at}
            open_ones = {at[name] for name in at if name != "shut"}
            queued = prometheus.query('jobqueue_jobs{queue="default",status="queued"}')
            assert queued == dict.fromkeys(open_ones, "1")
            assert (
                prometheus.query('jobqueue_http_requests_total{operation="enqueue",status="201"}') == queued
            )
            assert prometheus.query('jobqueue_info{version!="",auth="none"}') == {at["memory"]: "1"}
            assert set(prometheus.query("jobqueue_loop_lag_seconds_count > 0")) == open_ones
            assert prometheus.query("jobqueue_journal_full") == {at["journal"]: "0"}
            assert prometheus.query("jobqueue_journal_group_rows_sum >= 2").keys() == {at["journal"]}

            def rules():
                (group,) = prometheus.get("rules")["groups"]
                return group["rules"]

            until(lambda: {rule["health"] for rule in rules()} == {"ok"}, 30)

            def as_expected():
                """One server refuses, and the jobs of the others wait. How fast they are depends on the machine."""
                expected = {"JobqueueDown": {at["shut"]}, "JobqueueNobodyTakes": open_ones}
                found = rules()
                for rule in found:
                    if rule["name"] in OF_THE_MACHINE:
                        expected[rule["name"]] = set(prometheus.query(rule["query"]))
                return {rule["name"]: instances(rule) for rule in found} == {
                    rule["name"]: expected.get(rule["name"], set()) for rule in found
                }

            until(as_expected, 30)
        for server in servers.values():
            server.stop()
