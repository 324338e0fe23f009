"""Shows that nothing acknowledged is lost: `./scripts/crash.sh`.

Clients keep a ledger of their requests and of the answers. Meanwhile the server is killed, its power is cut,
its disk fills up or fails. In the end the ledger is checked against the server.
"""
