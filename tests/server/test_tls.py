"""HTTPS and Unix sockets, with the real program and both fronts."""

import json
import os
import signal
import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from http_client import Blunt
from running import CLI, MODULE, Connection, Program, environment, until

from jobqueue import Settings

ALL = os.environ.get("TEST_ALL") == "1"
fronts = pytest.mark.parametrize("front", ["fast", "tornado"])


class Authority:
    """Signs certificates, and writes them to files in `folder`."""

    def __init__(self, folder):
        self._folder = folder
        self._ca = trustme.CA()
        self.file = str(folder / f"ca-{id(self)}.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def certificate(self, name):
        """Makes a certificate for `name`. Returns the path of a file with it and its key."""
        path = self._folder / f"{name}-{id(self)}.pem"
        self._ca.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(path)
        return str(path)

    def client(self, certificate=None):
        context = ssl.create_default_context(cafile=self.file)
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def certificate(authority):
    return authority.certificate("localhost")


class Secure(Connection):
    """The blocking client, with TLS."""

    def __init__(self, port, context):
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        try:
            self.socket = context.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise
        self._file = self.socket.makefile("rb")


@fronts
def test_it_speaks_https_and_nothing_else(front, authority, certificate):
    with Program(JOBQUEUE_HTTP=front, JOBQUEUE_TLS_CERT=certificate) as program:
        assert f" on https://127.0.0.1:{program.port} ({front}" in program.start_line
        with Secure(program.port, authority.client()) as client:
            assert client.socket.version() in ("TLSv1.2", "TLSv1.3")
            for _ in range(5):
                made = client.call("POST", "/jobs/enqueue", {"type": "x", "payload": "y" * 500_000})
                assert made.status == 201
            job = client.call("POST", "/jobs/dequeue").json
            assert len(job["payload"]) == 500_000
            too_large = client.call("POST", "/jobs/enqueue", b"x" * (Settings().max_request + 1))
            assert too_large.status == 413
        with Secure(program.port, authority.client()) as client:
            client.ask("POST", "/jobs/dequeue?queue=q&wait=10")
            with Secure(program.port, authority.client()) as other:
                until(lambda: other.call("GET", "/stats").json["consumers_waiting"] == 1)
                other.call("POST", "/jobs/enqueue", {"type": "y", "queue": "q"})
            assert client.read().json["type"] == "y"
        with Connection(program.port) as plain:
            plain.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if front == "fast":
                answer = plain.read()
                assert (answer.status, answer.json["code"]) == (400, "bad_request")
                assert "https://" in answer.json["detail"]
                assert plain.ended()
            else:
                with suppress(ConnectionResetError):
                    assert plain.socket.recv(100)[:4] != b"HTTP"
        assert program.stop() == 0
    assert not any("error" in line for line in program.lines), program.lines


def test_the_authorities_of_a_worker_are_not_those_of_its_commands(authority, certificate, tmp_path):
    """`work --ca FILE` sets no SSL_CERT_FILE, which each program that a job starts would trust."""
    with Program(JOBQUEUE_TLS_CERT=certificate) as program:
        with Secure(program.port, authority.client()) as client:
            client.call("POST", "/jobs/enqueue", {"type": "x"})
        done = subprocess.run(
            [*CLI, "work", "-o", "--ca", authority.file, "--", "env"],
            env=environment(JOBQUEUE_URL=f"https://localhost:{program.port}", HOME=str(tmp_path)),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        with Secure(program.port, authority.client()) as client:
            [job] = client.call("GET", "/jobs?payload=1").json["jobs"]
            result = client.call("GET", f"/jobs/{job['id']}").json["result"]
        assert "JOB_ID=" in result
        assert authority.file not in result
        assert program.stop() == 0


@fronts
def test_a_client_that_hangs_up_gets_no_job(front, authority, certificate):
    with Program(JOBQUEUE_HTTP=front, JOBQUEUE_TLS_CERT=certificate) as program:
        waiting = Secure(program.port, authority.client())
        waiting.ask("POST", "/jobs/dequeue?wait=30")
        with Secure(program.port, authority.client()) as other:
            until(lambda: other.call("GET", "/stats").json["consumers_waiting"] == 1)
            waiting.close()
            until(lambda: other.call("GET", "/stats").json["consumers_waiting"] == 0)
            other.call("POST", "/jobs/enqueue", {"type": "x"})
            assert other.call("POST", "/jobs/dequeue").json["attempts"] == 1


@fronts
def test_an_answer_that_a_client_does_not_take_gives_its_jobs_back(front, authority, certificate):
    with Program(JOBQUEUE_HTTP=front, JOBQUEUE_TLS_CERT=certificate, JOBQUEUE_MAX_BODY="16MiB") as program:
        silent = Secure(program.port, authority.client())
        with Secure(program.port, authority.client()) as other:
            other.call("POST", "/jobs/enqueue", {"type": "x", "payload": "y" * 12_000_000})
            silent.ask("POST", "/jobs/dequeue?count=2")
            until(lambda: other.call("GET", "/stats").json["jobs"]["in_progress"] == 1)
            silent.close()
            until(lambda: other.call("GET", "/stats").json["jobs"]["queued"] == 1)
        assert program.stop() == 0


def test_old_versions_are_refused(authority, certificate):
    with Program(JOBQUEUE_TLS_CERT=certificate) as program:
        old = authority.client()
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError):
            Secure(program.port, old)


@fronts
def test_a_client_must_show_a_certificate_if_one_is_required(front, authority, certificate, tmp_path):
    with Program(
        JOBQUEUE_HTTP=front, JOBQUEUE_TLS_CERT=certificate, JOBQUEUE_TLS_CLIENT_CA=authority.file
    ) as program:
        good = authority.client(authority.certificate("worker"))
        with Secure(program.port, good) as client:
            assert client.call("GET", "/stats").status == 200
        for stranger in (authority.client(), authority.client(Authority(tmp_path).certificate("worker"))):
            with pytest.raises((ssl.SSLError, ConnectionError)), Secure(program.port, stranger) as client:
                client.call("GET", "/stats")


def test_sighup_reloads_the_certificate_unless_it_is_bad(authority, tmp_path):
    path = tmp_path / "cert.pem"
    path.write_bytes(Path(authority.certificate("localhost")).read_bytes())

    def shown():
        with Secure(program.port, authority.client()) as client:
            return client.socket.getpeercert()["serialNumber"]

    with Program(JOBQUEUE_TLS_CERT=str(path)) as program, Secure(program.port, authority.client()) as kept:
        first = shown()
        path.write_text("nonsense")
        program.signal(signal.SIGHUP)
        until(lambda: any("not reloaded: JOBQUEUE_TLS_CERT=" in line for line in program.lines))
        assert shown() == first
        path.write_bytes(Path(authority.certificate("localhost")).read_bytes())
        program.signal(signal.SIGHUP)
        until(lambda: shown() != first)
        assert kept.call("GET", "/healthz").status == 200
        assert program.stop() == 0


@fronts
def test_a_reset_before_the_accept_is_not_logged(front, authority, certificate):
    with Program(JOBQUEUE_HTTP=front, JOBQUEUE_TLS_CERT=certificate) as program:
        program.signal(signal.SIGSTOP)
        for data in (b"", b"\x16\x03"):
            client = Blunt(program.port)
            client.send(data)
            client.reset()
        program.signal(signal.SIGCONT)
        with Secure(program.port, authority.client()) as client:
            assert client.call("GET", "/healthz").status == 200
        assert program.stop() == 0
    assert not any("rror" in line for line in program.lines), program.lines


@pytest.mark.skipif(not ALL, reason="takes ten seconds: with TEST_ALL=1")
@fronts
def test_a_handshake_that_does_not_end_is_cut_off(front, certificate):
    with Program(JOBQUEUE_HTTP=front, JOBQUEUE_TLS_CERT=certificate) as program:
        with Connection(program.port) as silent:
            silent.socket.settimeout(15)
            assert silent.ended()
        assert program.stop() == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"TLS_CERT": "/none.pem"}, "JOBQUEUE_TLS_CERT=/none.pem"),
        ({"TLS_CERT": __file__}, "JOBQUEUE_TLS_CERT="),
        ({"TLS_KEY": __file__}, "need JOBQUEUE_TLS_CERT"),
        ({"TLS_CLIENT_CA": __file__}, "need JOBQUEUE_TLS_CERT"),
        ({"TLS_CERT": "CERT", "TLS_CLIENT_CA": __file__}, "JOBQUEUE_TLS_CLIENT_CA="),
    ],
)
def test_a_bad_file_is_one_line_and_exit_2(settings, says, certificate):
    given = {
        f"JOBQUEUE_{name}": certificate if value == "CERT" else value for name, value in settings.items()
    }
    done = subprocess.run(
        MODULE,
        env=environment(JOBQUEUE_PORT="0", **given),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert says in done.stderr


# -- a Unix socket ----------------------------------------------------------------------------------


class ByPath(Connection):
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(path)
        self._file = self.socket.makefile("rb")


@fronts
def test_a_unix_socket_serves_and_is_removed_at_the_end(front, tmp_path):
    path = str(tmp_path / "q.sock")
    with Program(JOBQUEUE_HTTP=front, JOBQUEUE_HOST=f"unix:{path}") as program:
        assert f" on unix:{path} ({front}" in program.start_line
        with ByPath(path) as client:
            assert client.call("POST", "/jobs/enqueue", {"type": "x"}).status == 201
            assert client.call("POST", "/queues/default/pause").status == 200
            passed_on = client.call("POST", "/queues/default/resume", X_Forwarded_For="10.0.0.1")
            assert passed_on.status == 403
            assert json.loads(passed_on.body)["code"] == "forbidden"
        taken = subprocess.run(
            MODULE,
            env=environment(JOBQUEUE_HOST=f"unix:{path}"),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (taken.returncode, taken.stderr.count("\n")) == (1, 1)
        assert taken.stderr.startswith(f"jobqueue: cannot listen on unix:{path}: ")
        assert program.stop() == 0
    assert not os.path.exists(path)


def test_a_left_over_socket_is_replaced_and_a_file_is_not(tmp_path):
    path = str(tmp_path / "q.sock")
    with Program(JOBQUEUE_HOST=f"unix:{path}") as program:
        program.signal(signal.SIGKILL)
        program.exit_status()
    assert os.path.exists(path)
    with Program(JOBQUEUE_HOST=f"unix:{path}") as program, ByPath(path) as client:
        assert client.call("GET", "/healthz").status == 200
    file = tmp_path / "file"
    file.write_text("mine")
    done = subprocess.run(
        MODULE,
        env=environment(JOBQUEUE_HOST=f"unix:{file}"),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert file.read_text() == "mine"


def test_a_proxy_on_a_unix_socket_can_be_trusted(tmp_path):
    path = str(tmp_path / "q.sock")
    with (
        Program(
            JOBQUEUE_HOST=f"unix:{path}", JOBQUEUE_TRUSTED_PROXIES="unix", JOBQUEUE_ACCESS_LOG="all"
        ) as program,
        ByPath(path) as client,
    ):
        assert client.call("GET", "/stats", X_Forwarded_For="1.2.3.4").status == 200
        until(lambda: any(" 1.2.3.4 rid=" in line for line in program.lines))
