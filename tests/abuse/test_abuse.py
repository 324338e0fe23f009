"""The short form of the attacks; the long one is `./scripts/abuse.sh`. With TEST_ALL=1 over both fronts."""

import os

import pytest

from tests.abuse.attacks import ATTACKS
from tests.abuse.harness import carry_out

ALL = os.environ.get("TEST_ALL") == "1"
# Under a second each; the others wait for deadlines, or send much.
_QUICK = {
    "framing", "deep and odd JSON", "a million queue names", "cross-origin posts", "rebinding", "token guessing",
    "SIGTERM in the middle",
}  # fmt: skip
CASES = [
    pytest.param(attack, front, id=f"{attack.name}-{front}")
    for attack in ATTACKS
    for front in attack.fronts
    if ALL or (front == attack.fronts[0] and attack.name in _QUICK)
]


@pytest.mark.parametrize(("attack", "front"), CASES)
def test_what_must_hold_does(attack, front):
    # A busy machine makes everything slower, so the time of the second client is for the long form.
    checks = carry_out(attack, front, 0.005, p99=2000)
    assert checks
    bad = [check for check in checks if check.holds is False]
    assert not bad, "\n".join(f"{check.must}: {check.measured}" for check in bad)
    if skipped := [check for check in checks if check.holds is None]:
        pytest.skip("; ".join(f"{check.must}: {check.measured}" for check in skipped))
