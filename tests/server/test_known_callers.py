"""Heads with an access token are cached; whether the token is valid is checked with each request."""

import pytest

from jobqueue import Settings
from jobqueue.server.http1.front import FastFront

ONE = "one-token-for-everything"
GOOD = {"Authorization": f"Bearer {ONE}"}
pytestmark = pytest.mark.parametrize("server", ["fast"], indirect=True)


@pytest.fixture
def settings():
    return Settings(access_token=ONE, first_id=1)


def known(server):
    assert isinstance(server.front, FastFront)
    return server.front.state.head_cache.blocks


async def test_only_heads_with_a_valid_token_are_cached(server):
    for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}):
        await server.get("/stats", headers)
        assert known(server) == {}
    await server.get("/stats", GOOD)
    assert len(known(server)) == 1
    assert (await server.get("/stats", GOOD)).status == 200


async def test_a_cached_head_is_refused_once_its_token_is_revoked(server):
    for status in (200, 200):
        assert (await server.get("/stats", GOOD)).status == status
    server.dispatcher.auth._settings.access_token = None
    server.dispatcher.auth.reload()
    assert len(known(server)) == 1
    assert (await server.get("/stats", GOOD)).status == 401
