"""What `deploy/` has for Prometheus and Grafana speaks of metrics that there are."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from serving import Server

from jobqueue import Settings
from jobqueue.engine.journal import JournalEngine
from jobqueue.server.watchdog import Watchdog
from jobqueue.testing import ManualClock

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text())
EXPRESSIONS = [rule["expr"] for rule in RULES] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]


async def names_and_labels(folder):
    """Every sample that a server tells which has done a little of everything, with the names of its labels."""
    server = Server("fast", Settings(first_id=1), ManualClock(), folder=folder)
    assert isinstance(server.engine, JournalEngine)
    await server.engine.load()
    server.api.more_metrics.append(Watchdog().metrics)
    await server.enqueue()
    job = await server.dequeue()
    await server.post(f"/jobs/{job['id']}/conclude")
    text = (await server.get("/metrics")).body.decode()
    await server.close()
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_every_metric_of_the_dashboard_and_of_the_rules_is_there_with_its_labels(tmp_path):
    known = await names_and_labels(str(tmp_path / "data"))
    assert len(EXPRESSIONS) > 20
    for expression in EXPRESSIONS:
        found = re.findall(r"\b(jobqueue_\w+)(?:\{([^}]*)\})?", expression)
        assert found or expression.startswith("up{"), expression
        for name, selector in found:
            assert name in known, expression
            labels = set(re.findall(r"(\w+)(?==~?|!=)", re.sub(r'"[^"]*"', "", selector))) - {"instance"}
            assert labels <= known[name], (expression, labels)


def test_the_dashboard_has_each_panel_in_a_place_of_its_own():
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_accepts_the_rules():
    done = subprocess.run(
        ["promtool", "check", "rules", str(DEPLOY / "alerts.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
