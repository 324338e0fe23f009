"""The proof that nothing acknowledged is lost: `./scripts/crash.sh`. Clients keep a ledger of what they asked for and
what they were told; the server is killed, cut off, starved and lied to meanwhile; then the ledger is checked."""
