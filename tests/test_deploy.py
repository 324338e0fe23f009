"""What `deploy/` and docs/metrics.md say to Prometheus and Grafana speaks of metrics that there are."""

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
from jobqueue.server.watchdog import Watchdog
from jobqueue.testing import ManualClock

ROOT = Path(__file__).parents[1]
DEPLOY, DOCS = ROOT / "deploy", ROOT / "docs"
RULES = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text())
EXPRESSIONS = [rule["expr"] for rule in RULES] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]


async def told(folder):
    """What a server tells which has done a little of everything."""
    settings = Settings(first_id=1, memory_limit="16GiB")
    server = Server("fast", settings, ManualClock(), folder=folder)
    await server.engine.load()
    server.api.more_metrics.append(Watchdog().metrics)
    await server.enqueue()
    job = await server.dequeue()
    await server.post(f"/jobs/{job['id']}/conclude")
    text = (await server.get("/metrics")).body.decode()
    await server.close()
    return text


async def test_every_metric_of_the_dashboard_and_of_the_rules_is_there_with_its_labels(tmp_path):
    families = text_string_to_metric_families(await told(str(tmp_path / "data")))
    known = {sample.name: set(sample.labels) for family in families for sample in family.samples}
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


async def test_the_manual_names_every_metric_and_no_other(tmp_path):
    text = await told(str(tmp_path / "data"))
    table = re.search(r"^\| metric \|.*?\n\n", (DOCS / "metrics.md").read_text(), re.MULTILINE | re.DOTALL)
    named = re.findall(r"`(jobqueue_\w+)`", table[0])
    assert sorted(named) == sorted(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))


with_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def promtool(*arguments, text=None):
    done = subprocess.run(
        ["promtool", "check", *arguments], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@with_promtool
def test_prometheus_accepts_the_rules():
    promtool("rules", str(DEPLOY / "alerts.yml"))


@with_promtool
async def test_prometheus_has_nothing_against_the_metrics(tmp_path):
    """Neither their form nor their names."""
    promtool("metrics", text=await told(str(tmp_path / "data")))
