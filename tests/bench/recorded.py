"""The recorded instructions of requests, `instructions.json`, and the comparison with those that were counted now.

The file has figures for some versions of Python ("3.11"), each with those of the reference workload beside them. The
counted ones are scaled by the reference, so another build of the same version can be compared. What our own compiled
code takes does not depend on the build, so that part is not scaled.
"""

import json
from collections.abc import Mapping
from pathlib import Path

RECORDED = Path(__file__).parent / "instructions.json"
# The share by which a figure may differ from the recorded one, either way: an unrecorded gain hides a later loss.
OF_A_LIFECYCLE = 0.03
OF_A_REQUEST = 0.06
# The share of our own compiled code: by it, the figures of two builds of 3.11 with and without optimisation by a profile
# agree to 0.1 % for a lifecycle, and to 2 % for each request.
_OWN = 0.15

Figures = Mapping[str, float]


def load(python: str) -> Figures | None:
    """Returns the figures of a version of Python, or None if none were recorded."""
    found: dict[str, Figures] = json.loads(RECORDED.read_text())
    return found.get(python)


def save(python: str, figures: Figures) -> None:
    found: dict[str, Figures] = json.loads(RECORDED.read_text())
    found[python] = {name: round(number) for name, number in figures.items()}
    RECORDED.write_text(json.dumps(found, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def differences(
    counted: Figures, recorded: Figures, lifecycles: Mapping[str, tuple[str, ...]], reference: str
) -> list[str]:
    """Returns a line for each lifecycle and request that takes more or fewer instructions than recorded."""
    scale = 1 / (_OWN + (1 - _OWN) * counted[reference] / recorded[reference])
    found = []

    def compare(name: str, parts: tuple[str, ...], limit: float) -> None:
        if missing := [part for part in parts if part not in recorded]:
            found.append(f"{name}: no figures are recorded of {', '.join(missing)}")
            return
        was = sum(recorded[part] for part in parts)
        now = sum(counted[part] for part in parts) * scale
        if abs(change := now / was - 1) > limit:
            found.append(
                f"{name}: {now:,.0f} instructions in place of {was:,.0f}, {change:+.1%}; the limit is ±{limit:.0%}"
            )

    for name, parts in lifecycles.items():
        compare(name, parts, OF_A_LIFECYCLE)
    for name in counted:
        if name != reference:
            compare(name, (name,), OF_A_REQUEST)
    return found
