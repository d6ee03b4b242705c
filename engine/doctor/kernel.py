"""The kernel's settings and counters that matter with thousands of sessions, read from proc(5)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from rlpx.engine.doctor.finding import Finding, State, judge

# Connections that may wait to be accepted. The listener asks for 4096; a peer that finds the queue full tries again later.
BACKLOG_MIN: Final = 1024
# The engine asks for 1 MiB between itself and a worker. With the usual 208 KiB a batch of events takes several turns.
SOCKET_BUFFER_MIN_BYTES: Final = 1024 * 1024
# An idle TCP connection holds next to nothing; one in use 4 KiB to read and as much to write.
TCP_BYTES_PER_SESSION: Final = 8 * 1024
# An ended connection stays in the table of connections for up to two minutes.
CONNTRACK_PER_SESSION: Final = 2
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Kernel:
    """Reads numbers below `/proc` and the cgroups' folder (others in tests). A setting that this kernel lacks is `None`."""

    def __init__(self, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> None:
        self.proc = proc
        self._cgroups = cgroups

    def numbers(self, name: str) -> list[int] | None:
        """The numbers of a setting, `net.core.somaxconn`."""
        try:
            text = (self.proc / "sys" / name.replace(".", "/")).read_text()
            return [int(item) for item in text.split()]
        except (OSError, ValueError):
            return None

    def number(self, name: str) -> int | None:
        """The first number of a setting."""
        found = self.numbers(name)
        return found[0] if found else None

    def available_bytes(self) -> int | None:
        """The memory that programs can still have: of the machine, or of our cgroup if that is less."""
        found: list[int] = []
        with suppress(OSError, ValueError, IndexError):
            lines = (self.proc / "meminfo").read_text().splitlines()
            found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        with suppress(OSError, ValueError, IndexError):
            place = next(line for line in (self.proc / "self/cgroup").read_text().splitlines() if line.startswith("0::"))
            folder = self._cgroups / place.removeprefix("0::").lstrip("/")
            for group in (folder, *folder.parents):
                if group == self._cgroups.parent:
                    break
                with suppress(OSError, ValueError):
                    limit = int((group / "memory.max").read_text())
                    found.append(max(0, limit - int((group / "memory.current").read_text())))
        return min(found, default=None)


def examine(kernel: Kernel, sessions: int, outbound: int, port: int) -> Iterator[Finding]:
    """All findings for this many sessions, of which `outbound` are dialled, and a listening port (0: none)."""
    yield from _at_least(kernel, "net.core.somaxconn", BACKLOG_MIN, "bursts of connections wait longer")
    yield from _at_least(kernel, "net.ipv4.tcp_max_syn_backlog", BACKLOG_MIN, "bursts of connections wait longer")
    for name in ("net.core.wmem_max", "net.core.rmem_max"):
        yield from _at_least(kernel, name, SOCKET_BUFFER_MIN_BYTES, "events take more turns of the loop")
    yield from _tcp_memory(kernel, sessions)
    yield from _conntrack(kernel, sessions)
    yield from _ports(kernel, outbound, port)
    yield from _overcommit(kernel)


def _at_least(kernel: Kernel, name: str, wanted: int, otherwise: str) -> Iterator[Finding]:
    found = kernel.number(name)
    if found is not None:
        advice = f"sysctl -w {name}={wanted}, or {otherwise}"
        yield judge(f"kernel.{name}", str(found), is_well=found >= wanted, advice=advice)


def _tcp_memory(kernel: Kernel, sessions: int) -> Iterator[Finding]:
    found = kernel.numbers("net.ipv4.tcp_mem")
    if found is not None and len(found) > 1:
        wanted = sessions * TCP_BYTES_PER_SESSION
        pressure = found[1] * _PAGE_BYTES
        yield judge(
            "kernel.net.ipv4.tcp_mem",
            f"{pressure >> 20} MiB before the kernel saves memory; {sessions} sessions in use need {wanted >> 20} MiB",
            is_well=pressure >= wanted,
            advice="raise the second and third number of net.ipv4.tcp_mem (pages)",
        )


def _conntrack(kernel: Kernel, sessions: int) -> Iterator[Finding]:
    limit = kernel.number("net.netfilter.nf_conntrack_max")
    if limit is None:
        return
    wanted = sessions * CONNTRACK_PER_SESSION
    free = limit - (kernel.number("net.netfilter.nf_conntrack_count") or 0)
    yield judge(
        "kernel.net.netfilter.nf_conntrack_max",
        f"{free} of {limit} entries are free",
        is_well=free >= wanted,
        advice=f"sysctl -w net.netfilter.nf_conntrack_max={limit + wanted - free}, or connections are lost when it is full",
    )


def _ports(kernel: Kernel, outbound: int, port: int) -> Iterator[Finding]:
    span = kernel.numbers("net.ipv4.ip_local_port_range")
    if span is None or len(span) < 2:  # noqa: PLR2004 - the first and the last port
        return
    name = "kernel.net.ipv4.ip_local_port_range"
    first, last = span[:2]
    found = f"{first} to {last}"
    if first <= port <= last:
        advice = f"sysctl -w net.ipv4.ip_local_reserved_ports={port}: any connection of this machine may take the port first"
        reserved = _reserved(kernel)
        yield judge(name, f"{found}, with our port {port} in it", is_well=port in reserved, advice=advice)
        return
    # Two connections to different peers may have the same local port; those to one address may not.
    advice = 'sysctl -w net.ipv4.ip_local_port_range="16384 65535"'
    yield judge(name, found, is_well=last - first >= outbound, advice=advice)


def _reserved(kernel: Kernel) -> set[int]:
    found: set[int] = set()
    with suppress(OSError, ValueError):
        for part in (kernel.proc / "sys/net/ipv4/ip_local_reserved_ports").read_text().strip().split(","):
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    return found


def _overcommit(kernel: Kernel) -> Iterator[Finding]:
    found = kernel.number("vm.overcommit_memory")
    if found is not None:
        yield judge(
            "kernel.vm.overcommit_memory",
            str(found),
            is_well=found != 2,  # noqa: PLR2004 - proc(5): never overcommit
            advice="0 or 1: with 2, a worker may not start although there is memory",
            otherwise=State.WARN,
        )
