"""What `deploy/` and docs/metrics.md say to Prometheus and Grafana speaks of metrics that exist."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from postgres_server import needs_postgres
from prometheus_client.parser import text_string_to_metric_families

from jobqueue import Settings
from jobqueue.cli.commands import COMMANDS
from jobqueue.cli.main import parser_of

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "server"))
from running import Program, until  # noqa: E402  # the folder has to be on the path first

DEPLOY, DOCS = ROOT / "deploy", ROOT / "docs"
RULES = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text())
EXPRESSIONS = [rule["expr"] for rule in RULES] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    """The metrics of the real program with a journal, after it did a little of everything."""
    folder = str(tmp_path_factory.mktemp("metrics") / "data")
    with Program(JOBQUEUE_DATA=folder, JOBQUEUE_FIRST_ID="1", JOBQUEUE_ACCESS_LOG="off") as program:
        while program.call("POST", "/jobs/enqueue", {"type": "x"})[0] != 201:
            pass  # it reads its journal
        job = program.call("POST", "/jobs/dequeue")[1]
        assert program.call("POST", f"/jobs/{job['id']}/conclude")[0] == 200
        text = program.call("GET", "/metrics")[1].decode()
        program.stop()
    return text


@pytest.fixture(scope="module")
def all_metrics(metrics, postgres):
    """Those of servers on PostgreSQL as well, with one shard and with two."""
    families = {}
    for shards in ("1", "2"):
        with Program(
            JOBQUEUE_DATA=postgres.url(postgres.create_database()), JOBQUEUE_SHARDS=shards,
            JOBQUEUE_ACCESS_LOG="off", expect_5xx=True,
        ) as program:  # fmt: skip
            until(lambda: program.call("GET", "/readyz")[0] == 200, 20)
            text = program.call("GET", "/metrics")[1].decode()
            families |= {
                one.split()[2]: one for one in re.split(r"^(?=# HELP )", text, flags=re.MULTILINE) if one
            }
            program.stop()
    return metrics + "".join(
        one for name, one in families.items() if re.match("jobqueue_(cluster|database)_", name)
    )


@needs_postgres
def test_every_metric_of_the_dashboard_and_of_the_rules_exists_with_its_labels(all_metrics):
    families = text_string_to_metric_families(all_metrics)
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


def test_every_rule_has_a_summary():
    assert all(rule["annotations"]["summary"] for rule in RULES)


@needs_postgres
def test_the_manual_names_every_metric_and_no_other(all_metrics):
    table = re.search(r"^\| metric \|.*?\n\n", (DOCS / "metrics.md").read_text(), re.MULTILINE | re.DOTALL)
    named = re.findall(r"`(jobqueue_\w+)`", table[0])
    assert sorted(named) == sorted(re.findall(r"^# TYPE (\w+)", all_metrics, re.MULTILINE))


def test_the_image_has_every_file_that_it_copies():
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert len(copied) > 4
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name
    sourced = re.findall(r'^\. "\$root/(\S+)"$', (ROOT / "scripts" / "run.sh").read_text(), re.MULTILINE)
    assert sourced
    assert set(sourced) <= set(" ".join(copied).split())


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
@needs_postgres
def test_prometheus_accepts_the_metrics_and_their_names(all_metrics):
    promtool("metrics", text=all_metrics)


# -- services ---------------------------------------------------------------------------------------


def test_the_line_for_platforms_listens_where_port_says():
    [line] = (ROOT / "Procfile").read_text().splitlines()
    name, _, command = line.partition(": ")
    assert name == "web"
    assert line in (DOCS / "install.md").read_text()
    with Program(
        ("sh", "-c", f"cd {shlex.quote(str(ROOT))}; exec env {command}"), PORT="0", JOBQUEUE_PORT="not one"
    ) as program:
        assert program.call("GET", "/healthz")[0] == 200
        assert program.stop() == 0


def test_the_lines_of_the_page_name_files_and_commands_that_exist():
    blocks = re.findall(r"^```sh\n(.*?)^```", (DOCS / "install.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    assert len(lines) > 12
    for line in lines:
        for name in re.findall(r"(?<![\w/])(?:deploy|scripts)/[\w.-]+", line):
            assert (ROOT / name).exists(), line
        for command in re.findall(r"(?:run\.sh|run --rm jobqueue) (\w+)$", line):
            assert command in {*COMMANDS, "compile"}, line


def test_the_compose_file_runs_the_command_of_the_image():
    compose = yaml.safe_load((DEPLOY / "compose.yml").read_text())
    server, worker = compose["services"]["jobqueue"], compose["services"]["worker"]
    assert (DEPLOY / server["build"]["context"] / server["build"]["dockerfile"]).resolve().exists()
    assert set(compose["volumes"]) == {volume.partition(":")[0] for volume in server["volumes"]}
    assert worker["environment"]["JOBQUEUE_URL"] == "http://jobqueue:8080"
    at = worker["command"].index("--")
    parsed = parser_of(COMMANDS[worker["command"][0]]).parse_args(worker["command"][1:at])
    assert parsed.queues == "thumbs"
    image = (DEPLOY / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["./scripts/run.sh"]\nCMD ["serve"]\n' in image


def test_the_compose_file_of_a_cluster_has_the_servers_that_its_proxy_knows():
    compose = yaml.safe_load((DEPLOY / "compose-cluster.yml").read_text())
    services, proxy = compose["services"], compose["services"]["proxy"]
    file, inside, _ = proxy["volumes"][0].split(":")
    known = re.findall(r"^    server (\w+) (\w+):(\d+)$", (DEPLOY / file).read_text(), re.MULTILINE)
    assert inside == "/usr/local/etc/haproxy/haproxy.cfg"
    assert [name for name, _, _ in known] == [host for _, host, _ in known] == proxy["depends_on"]
    database = services["database"]["environment"]
    for name, _, port in known:
        server = services[name]
        user, place, database_name = re.fullmatch(
            r"postgresql://(\w+)@(\w+)/(\w+)", server["environment"]["JOBQUEUE_DATA"]
        ).groups()
        assert (user, database_name) == (database["POSTGRES_USER"], database["POSTGRES_DB"])
        assert (place, port) == ("database", "8080")
        assert server["environment"]["PGPASSWORD"] == database["POSTGRES_PASSWORD"]
        Settings.from_environment(server["environment"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", ["jobqueue.service", "jobqueue@.service"])
def test_systemd_accepts_the_unit(name, tmp_path):
    text = (DEPLOY / name).read_text()
    [command] = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert command == "/opt/jobqueue/.venv/bin/python -m jobqueue serve"
    # What it runs is not installed here.
    unit = tmp_path / name.replace("@", "@8080")
    unit.write_text(text.replace(command.partition(" ")[0], shutil.which("true")))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if str(unit.name) in line]
    assert (done.returncode, said) == (0, []), done.stdout + done.stderr
