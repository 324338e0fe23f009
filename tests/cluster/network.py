"""Machines in network namespaces of their own, connected by a bridge, whose connections can be cut in one direction."""

import os
import subprocess
from typing import NamedTuple, Self

# Of RFC 2544, for benchmarks: nobody else uses it.
_SUBNET = "198.18.77"
# No machine has it, so what is sent there is lost, without an error.
_NOWHERE = "02:00:00:00:00:99"


class Machine(NamedTuple):
    name: str
    address: str

    @property
    def inside(self) -> tuple[str, ...]:
        """The command that starts another one on this machine."""
        return ("ip", "netns", "exec", self.name)


class Network:
    """`machines`, for the length of a `with`. Needs root."""

    def __init__(self, count: int) -> None:
        self._bridge = f"jq{os.getpid() % 100_000}"
        self.machines = [Machine(f"{self._bridge}-{n}", f"{_SUBNET}.{n + 10}") for n in range(count)]

    def __enter__(self) -> Self:
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("address", "add", f"{_SUBNET}.1/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for number, (name, address) in enumerate(self.machines):
                port = f"{self._bridge}p{number}"
                _ip("netns", "add", name)
                _ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
                _ip("link", "set", port, "master", self._bridge, "up")
                _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
                _ip("-n", name, "link", "set", "eth0", "up")
                _ip("-n", name, "link", "set", "lo", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name, _ in self.machines:
            _ip("netns", "del", name, check=False)
        _ip("link", "del", self._bridge, check=False)

    def cut(self, source: Machine, target: Machine) -> None:
        """Loses what `source` sends to `target`."""
        _ip(
            "-n",
            source.name,
            "neighbor",
            "replace",
            target.address,
            "lladdr",
            _NOWHERE,
            "dev",
            "eth0",
            "nud",
            "permanent",
        )

    def heal(self, source: Machine, target: Machine) -> None:
        _ip("-n", source.name, "neighbor", "del", target.address, "dev", "eth0")


def _ip(*arguments: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 0 or not check, f"ip {' '.join(arguments)}: {done.stderr}"


def missing() -> str | None:
    """Returns why namespaces cannot be made here; None if they can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    try:
        with Network(1):
            return None
    except (AssertionError, OSError) as bad:
        return f"network namespaces cannot be made here: {bad}"
