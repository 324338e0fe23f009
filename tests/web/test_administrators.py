"""Administrative calls on a server without access tokens: who is a person at this machine."""

import asyncio
import os
import socket
import struct
from contextlib import contextmanager
from ipaddress import ip_address

import pytest
from http_client import Client
from serving import check_problem

from jobqueue import Settings
from jobqueue.errors import Overloaded, Refused
from jobqueue.web.access import administrators, socket_diag
from jobqueue.web.access.administrators import Administrators, is_local, is_loopback_name, is_person
from jobqueue.web.access.socket_owners import (
    _MOST,
    TABLES,
    Ends,
    Owner,
    SocketOwners,
    asked_owner,
    ends_of,
    owners,
)
from jobqueue.web.http import Request
from jobqueue.web.routes import ROUTES

WWW_DATA = 33
SECRET = "one-token-for-everything"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can send requests as another user")
needs_linux = pytest.mark.skipif(
    not os.path.exists("/proc/net/tcp"), reason="this system has no /proc/net/tcp"
)
# Each administrative call, with a body if it needs one.
CALLS = [
    (
        route.method,
        route.path.replace("{name}", "q")
        + (
            "?all=true" + "&to=other" * route.path.endswith("move")
            if route.path.endswith(("purge", "redrive", "cancel", "run_now", "move"))
            else ""
        ),
    )
    for route in ROUTES
    if route.right == "admin"
]
JOB = b'{"type":"x"}\n'
SCHEDULE = {"every": 60, "job": {"type": "x"}}
PURGE = "/queues/q/purge?all=true"


@contextmanager
def user(uid):
    """What is connected meanwhile belongs to another user."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


async def connect_as(uid, server):
    """A client whose process seems to run as `uid`."""
    loop = asyncio.get_running_loop()
    with user(uid):
        connecting = socket.socket()
        connecting.setblocking(False)
        connecting.bind(("127.0.0.1", 0))
    await loop.sock_connect(connecting, ("127.0.0.1", server.port))
    client = Client(*await asyncio.open_connection(sock=connecting, limit=64 << 20))
    server._clients.append(client)
    return client


def body_of(path):
    return {
        "/import": JOB, "/queues/q": {"lease_for": "9s"}, "/schedules/q": SCHEDULE,
        "/schedules": {"group": "g", "schedules": []}, "/schedules/import": {"schedules": []},
    }.get(path)  # fmt: skip


# -- through the fronts -----------------------------------------------------------------------------


@needs_root
@needs_linux
@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_a_proxy_on_this_machine_may_not_administer(server, method, path):
    """nginx with nothing but `proxy_pass` adds no header, and asks for the name that it was configured with."""
    await server.enqueue(queue="q")
    for headers in ({"Host": f"127.0.0.1:{server.port}"}, {"Host": "localhost", "User-Agent": "curl/8"}):
        client = await connect_as(WWW_DATA, server)
        for _ in range(2):
            answer = await client.call(method, path, body_of(path), headers)
            refused = check_problem(answer, 403, "forbidden", setting="JOBQUEUE_ACCESS_TOKEN")
            assert "user id 33" in refused["detail"]
    assert (await server.get("/stats")).json["jobs"]["queued"] == 1
    queue = await server.get("/queues/q")
    assert not queue.json["paused"]
    assert b'"lease_for":9' not in queue.body


@needs_root
@needs_linux
@pytest.mark.parametrize("uid", [0, 1000, 60_000])
async def test_a_person_may(server, uid):
    client = await connect_as(uid, server)
    for _ in range(2):
        await server.enqueue(queue="q")
        answer = await client.call("POST", "/queues/q/purge?all=true")
        assert (answer.status, answer.json["changed"]) == (200, 1), answer
        exported = await client.call("GET", "/queues/q/export", None, {"Host": "[::1]:8080"})
        assert exported.status == 200


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_each_call_is_performed_for_who_runs_the_server(server, method, path):
    if path.startswith("/schedules/q"):
        await server.call("PUT", "/schedules/q", SCHEDULE)
    answer = await server.call(method, path, body_of(path) if method != "DELETE" else None)
    assert answer.status == (201 if path.endswith("/run") else 200), answer


@needs_root
@needs_linux
@pytest.mark.parametrize("settings", [Settings(first_id=1, open_admin=True)])
async def test_open_administration_is_for_everybody(server):
    await server.enqueue(queue="q")
    client = await connect_as(WWW_DATA, server)
    assert (await client.call("POST", PURGE, None, {"Host": "queue.example"})).json["changed"] == 1


@needs_root
@needs_linux
@pytest.mark.parametrize("settings", [Settings(first_id=1, access_token=SECRET)])
async def test_with_access_tokens_the_token_decides(server):
    client = await connect_as(WWW_DATA, server)
    headers = {"Host": "queue.example", "Authorization": f"Bearer {SECRET}"}
    assert (await client.call("POST", PURGE, None, headers)).status == 200


@pytest.mark.parametrize(
    "host", ["queue.example", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil.example", "[::2]", ""]
)
async def test_what_is_asked_for_another_name_is_no_administrative_call(server, host):
    refused = check_problem(await server.post(PURGE, None, {"Host": host}), 403, "forbidden")
    assert "ask for localhost" in refused["detail"]
    assert (await server.post("/jobs/enqueue", {"type": "x"}, {"Host": host or "x"})).status == 201


async def test_the_name_in_the_path_counts_if_there_is_one(server):
    path = f"http://queue.example{PURGE}"
    check_problem(await server.post(path, None, {"Host": "localhost"}), 403, "forbidden")


async def test_a_client_that_leaves_before_it_is_known_has_changed_nothing(server, monkeypatch):
    asked = []

    def never(ends):
        asked.append(asyncio.get_running_loop().create_future())
        return asked[-1]

    monkeypatch.setattr(server.dispatcher.administrators, "owners", SocketOwners())
    monkeypatch.setattr(server.dispatcher.administrators.owners, "find", never)
    id = await server.enqueue(queue="q")
    client = await server.ask("POST", PURGE)
    while not asked:
        await asyncio.sleep(0)
    client.close()
    async with asyncio.timeout(5):
        while not asked[0].cancelled():
            await asyncio.sleep(0)
    assert server.untouched(id)


async def test_if_the_user_cannot_be_known_the_answer_says_what_to_do(server, monkeypatch):
    monkeypatch.setattr(server.dispatcher.administrators, "owners", SocketOwners(["/proc/version"]))
    for method, path in CALLS:
        answer = await server.call(method, path, body_of(path))
        refused = check_problem(answer, 403, "forbidden", setting="JOBQUEUE_ACCESS_TOKEN")
        assert "JOBQUEUE_ACCESS_TOKEN" in refused["detail"]


async def test_a_system_that_does_not_tell_goes_by_address_and_name(server, monkeypatch):
    monkeypatch.setattr(server.dispatcher.administrators, "owners", None)
    assert (await server.post(PURGE)).status == 200
    check_problem(await server.post(PURGE, None, {"Host": "queue.example"}), 403, "forbidden")


# -- Unix sockets -----------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize(("uid", "allowed"), [(0, True), (1000, True), (WWW_DATA, False), (65534, False)])
def test_who_has_connected_to_a_unix_socket_decides(tmp_path, uid, allowed):
    os.chmod(tmp_path, 0o777)
    for folder in tmp_path.parents:
        if folder.stat().st_uid == 0 and folder != folder.parent and str(folder).startswith("/tmp/"):
            os.chmod(folder, 0o755)
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(path)
        os.chmod(path, 0o777)
        listening.listen()
        with user(uid):
            client.connect(path)
        accepted, _ = listening.accept()
        with accepted:
            request = Request("POST", "/queues/q/purge", "", {b"host": b"any.name"}, b"", "unix", "r")
            request.descriptor = accepted.fileno()
            if allowed:
                assert Administrators().check(request) is None
            else:
                with pytest.raises(Refused, match=f"user id {uid}"):
                    Administrators().check(request)
            assert accepted.fileno() >= 0, "it is still open"


# -- whose socket it is -----------------------------------------------------------------------------

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ENDS = Ends(("127.0.0.1", 49572), ("127.0.0.1", 8080))


def row(local="0100007F:C1A4", remote="0100007F:1F90", state="01", uid=1000, inode=51234):
    return (
        f"   7: {local} {remote} {state} 00000000:00000000 00:00000000 00000000 {uid:5}        0 {inode} 1"
        " 0000000000000000 20 4 30 10 -1\n"
    )


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "tcp"

    def write(*rows):
        path.write_text(HEAD + "".join(rows))
        return [str(path)]

    return write


def test_the_row_of_the_client_is_found_among_many(table):
    others = [row(f"0100007F:{port:04X}", uid=33) for port in range(20_000, 30_000)]
    server = row("0100007F:1F90", "0100007F:C1A4", uid=33)
    assert owners([ENDS], table(*others, server, row(), *others)) == [Owner(1000)]


def test_a_client_of_ipv6_has_another_form(table):
    six = "00000000000000000000000001000000"
    mapped = "0000000000000000FFFF00000100007F"
    tables = table(row(f"{six}:C1A4", f"{six}:1F90", uid=7), row(f"{mapped}:C1A4", f"{mapped}:1F90", uid=8))
    ends = [
        Ends(("::1", 49572), ("::1", 8080)),
        ENDS,
        Ends(("::ffff:127.0.0.1", 49572), ("::ffff:127.0.0.1", 8080)),
    ]
    assert [owner.uid for owner in owners(ends, tables)] == [7, 8, 8]


@pytest.mark.parametrize("state", ["04", "05", "06", "08"])
def test_a_socket_that_no_process_holds_is_nobodys_though_it_is_shown_as_roots(table, state):
    (owner,) = owners([ENDS], table(row(state=state, uid=0, inode=0)))
    assert owner.uid is None
    assert "closed" in owner.why


@needs_root
@needs_linux
async def test_a_proxy_that_hangs_up_after_its_request_does_not_pass_for_root(server):
    """Its socket is shown with the uid 0 from then on."""
    id = await server.enqueue(queue="q")
    for _ in range(5):
        with user(WWW_DATA):
            proxy = socket.create_connection(("127.0.0.1", server.port))
        proxy.sendall(f"POST {PURGE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
        proxy.close()
        await server.get("/stats")
        assert server.untouched(id)


def test_what_is_not_there_or_cannot_be_read_is_not_known(table, tmp_path):
    (owner,) = owners([ENDS], table(row("0100007F:C1A5"), row(remote="0200007F:1F90")))
    assert owner == Owner(None, "this system shows no such socket")
    assert owners([ENDS], [str(tmp_path / "none")])[0].uid is None
    (owner,) = owners([ENDS], [str(tmp_path)])
    assert "Is a directory" in owner.why


def test_a_table_that_takes_too_long_is_not_read_to_its_end(table, monkeypatch):
    monkeypatch.setattr("jobqueue.web.access.socket_owners._LONGEST", -1.0)
    (owner,) = owners([ENDS], table(*[row("0200007F:0001")] * 1000, row()))
    assert owner.uid is None
    assert "too many rows" in owner.why


@needs_linux
@pytest.mark.parametrize("tables", [None, TABLES])
async def test_the_owner_of_a_real_connection_is_found(server, tables):
    client = await server.connect()
    connected = client._writer.get_extra_info("socket")
    ends = Ends(connected.getsockname(), connected.getpeername())
    found = await asyncio.gather(*[SocketOwners(tables).find(ends) for _ in range(3)])
    assert found == [Owner(os.getuid())] * 3


@needs_linux
@pytest.mark.parametrize(
    ("family", "listens_at", "asked"),
    [(socket.AF_INET, "127.0.0.1", "127.0.0.1"), (socket.AF_INET6, "::1", "::1"),
     (socket.AF_INET, "127.0.0.1", "::ffff:127.0.0.1")],
)  # fmt: skip
def test_the_kernel_tells_of_each_socket_what_its_tables_have(family, listens_at, asked):
    with socket.create_server((listens_at, 0), family=family) as listening:
        client = socket.socket(socket.AF_INET6 if ":" in asked else socket.AF_INET)
        client.connect((asked, listening.getsockname()[1]))
        accepted, _ = listening.accept()
        ends = ends_of(accepted.fileno())
        with accepted:
            assert [asked_owner(ends)] == owners([ends]) == [Owner(os.getuid())]
            client.close()
            accepted.recv(1)
            assert [asked_owner(ends)] == owners([ends])
            assert asked_owner(ends).uid is None


@needs_linux
def test_who_listens_on_the_port_of_a_client_that_has_gone_is_not_taken_for_it():
    """The kernel shows that socket if there is no other."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        for _ in range(20):
            client = socket.create_connection(listening.getsockname())
            accepted, _ = listening.accept()
            ends, mine = ends_of(accepted.fileno()), client.getsockname()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()  # without a trace
            with accepted:
                try:
                    other = socket.create_server(mine)
                except OSError:  # another program was given that port meanwhile
                    continue
                with other:
                    assert asked_owner(ends) is None
                    assert owners([ends]) == [Owner(None, "this system shows no such socket")]
                return
        raise AssertionError("no port stayed free")


@needs_linux
async def test_where_the_kernel_may_not_be_asked_its_tables_are_read(server, monkeypatch):
    def refused(*_):
        raise PermissionError

    monkeypatch.setattr(socket_diag.socket, "socket", refused)
    assert socket_diag.holder((ip_address("127.0.0.1"), 1), (ip_address("127.0.0.1"), 2)) is None
    monkeypatch.undo()
    monkeypatch.setattr("jobqueue.web.access.socket_owners.holder", lambda *_: None)
    assert (await server.post("/queues/q/pause")).status == 200


def test_the_ends_of_a_connection_are_those_of_its_socket():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        accepted, address = listening.accept()
        with client, accepted:
            assert ends_of(accepted.fileno()) == Ends(address, listening.getsockname())
            accepted.sendall(b"still open")


@needs_linux
async def test_many_that_ask_at_once_share_a_read_and_too_many_are_refused(table):
    tables = table(row())
    asking = SocketOwners(tables)
    found = [asking.find(ENDS) for _ in range(200)]  # the first one is read for at once
    found[3].cancel()
    found += [asking.find(ENDS) for _ in range(_MOST + 1 - len(found))]
    with pytest.raises(Overloaded):
        asking.find(ENDS)
    done = await asyncio.gather(*found, return_exceptions=True)
    assert [owner for owner in done if isinstance(owner, Owner)] == [Owner(1000)] * (len(found) - 1)
    assert await asking.find(ENDS) == Owner(1000)


@needs_linux
async def test_who_asks_while_the_server_stops_is_told_so(table, monkeypatch):
    asking = SocketOwners(table(row()))
    loop = asyncio.get_running_loop()
    found = [asking.find(ENDS) for _ in range(_MOST)]  # a read is under way for the first one only

    def run_in_executor(*arguments):
        raise RuntimeError("Executor shutdown has been called")

    monkeypatch.setattr(loop, "run_in_executor", run_in_executor)
    owners = await asyncio.gather(*found)
    assert owners == [Owner(1000)] + [Owner(None, "the server stops")] * (_MOST - 1)


# -- persons, names, addresses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uid", "person"),
    [
        (0, True), (1, False), (33, False), (999, False), (1000, True), (60_000, True), (65_534, False),
        (61_184, False), (65_519, False), (65_536, True), (524_288, True), (2**32 - 2, False), (2**32 - 1, False),
    ],
)  # fmt: skip
def test_persons_are_those_from_1000_on(uid, person, monkeypatch):
    monkeypatch.setattr(administrators.os, "geteuid", lambda: 12)
    assert is_person(uid) is person


def test_the_user_of_the_server_may(monkeypatch):
    monkeypatch.setattr(administrators.os, "geteuid", lambda: 33)
    assert is_person(33)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True), ("LOCALHOST:8080", True), ("localhost.", True), ("a.localhost:1", True),
        ("127.0.0.1", True), ("127.8.9.10:80", True), ("[::1]", True), ("[::1]:8080", True),
        ("[::ffff:127.0.0.1]:1", True),
        ("", False), ("localhost.example", False), ("notlocalhost", False), ("127.0.0.1.example", False),
        ("0.0.0.0", False), ("10.0.0.1:8080", False), ("[::2]", False), ("[", False), ("machine", False),
    ],
)  # fmt: skip
def test_names_of_the_loopback_interface(host, loopback):
    assert is_loopback_name(host) is loopback


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "unix"])
def test_addresses_of_this_machine_are_local(peer):
    assert is_local(peer, {b"host": b"evil.example"})


@pytest.mark.parametrize(
    "peer",
    ["10.0.0.1", "192.168.1.1", "172.17.0.1", "128.0.0.1", "1.127.0.0", "12.7.0.1", "::", "::2", "::1:2",
     "::1234", "fe80::1", "::ffff:10.0.0.1", "2001:db8::1", ""],
)  # fmt: skip
def test_other_machines_and_published_ports_of_containers_are_not(peer):
    """A container sees the address of its bridge, such as 172.17.0.1, for every caller of its published port."""
    assert not is_local(peer, {})
    request = Request("POST", "/queues/q/purge", "", {b"host": b"localhost"}, b"", peer, "r")
    with pytest.raises(Refused, match="from elsewhere"):
        Administrators().check(request)


@pytest.mark.parametrize(
    "header", [b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"]
)
def test_what_a_proxy_says_that_it_passed_on_is_not_local(header):
    assert not is_local("127.0.0.1", {header: b"for=127.0.0.1"})
