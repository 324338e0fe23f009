"""TLS between servers: certificates with names that do not matter, and nobody in between."""

import asyncio
import ssl

import pytest
import trustme
from cryptography import x509
from serving import until

from jobqueue.cluster.link_tls import link_tls, proof
from jobqueue.errors import NotReady, OutcomeUnknown
from jobqueue.model import NewJob
from tests.cluster.in_process import InProcess, queues_of_servers


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Two certificates of different authorities."""
    folder = tmp_path_factory.mktemp("certificates")
    paths = []
    for name in ("one.example", "two.example"):
        path = folder / f"{name}.pem"
        trustme.CA().issue_cert(name).private_key_and_cert_chain_pem.write_to_path(path)
        paths.append(str(path))
    return paths


async def test_servers_speak_tls_by_their_own_certificates(certificates):
    one, two = [link_tls(path, None) for path in certificates]
    cluster = InProcess(3, tls=(one, two, one))
    try:
        for [name] in queues_of_servers(3):
            made = cluster.servers[0].engine.enqueue(NewJob("t", name))
            job = await asyncio.wait_for(made, 5) if isinstance(made, asyncio.Future) else made
            assert job.queue == name
        peer = cluster.servers[0].links.peer(cluster.servers[1].place)
        assert peer._transport.get_extra_info("cipher")
    finally:
        await cluster.close()


async def test_whoever_ends_the_tls_in_between_is_found_out(certificates, logged, monkeypatch):
    """The caller sees another certificate than that of the server."""
    monkeypatch.setattr("jobqueue.cluster.shard.PATIENCE", 0.3)
    one, two = [link_tls(path, None) for path in certificates]
    cluster = InProcess(2, tls=(one, two._replace(certificate=one.certificate)))
    try:
        [_, [name]] = queues_of_servers(2)
        engine = cluster.servers[0].engine
        with pytest.raises((NotReady, OutcomeUnknown)):
            await asyncio.wait_for(engine.enqueue(NewJob("t", name)), 5)
        await until(lambda: logged)
    finally:
        await cluster.close()
        assert "did not see the certificate" in logged[0].getMessage()
        logged.clear()


def test_the_certificate_is_the_first_one_of_the_file(certificates):
    found = link_tls(certificates[0], None)
    names = x509.load_der_x509_certificate(found.certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["one.example"]
    assert found.calling.verify_mode == ssl.CERT_NONE
    assert proof("a", found.certificate) != proof("b", found.certificate)
