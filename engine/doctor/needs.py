"""What the settings need of this machine: descriptors, memory, cores, a port that peers can reach."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rlpx.engine.doctor.finding import Finding, State, judge
from rlpx.engine.doctor.kernel import Kernel
from rlpx.engine.engine import listen
from rlpx.engine.hub.router import MAX_OPEN_REQUEST_BYTES, REPLY_QUEUES_BYTES
from rlpx.engine.settings import node_key
from rlpx.engine.settings.addresses import dialable
from rlpx.engine.settings.chain import load_chain
from rlpx.engine.settings.descriptor_needs import check_descriptors, needs
from rlpx.engine.settings.load import Loaded
from rlpx.engine.settings.run_dir import RunDir
from rlpx.engine.settings.settings import Settings
from rlpx.protocol.bus.places import run_dir_path
from rlpx.protocol.mistakes import ConfigError
from rlpx.protocol.native import NATIVE, WHY_NOT_NATIVE
from rlpx.protocol.rlpx.host_port import parse_host_port

# Resident memory of a process without sessions (50 and 40 MiB), and what an idle session adds (7.6 KiB), rounded up:
# measured on x86-64 with Python 3.11.
ENGINE_BYTES: Final = 55 * 1024 * 1024
WORKER_BYTES: Final = 45 * 1024 * 1024
SESSION_BYTES: Final = 10 * 1024
# The bounds of a worker's data endpoint: unfinished messages of programs, and messages that wait for them.
DATA_BYTES: Final = 96 * 1024 * 1024


def sessions_of(settings: Settings) -> int:
    """The largest number of sessions at the same time."""
    limits = settings.limits
    pending = limits.max_unauthenticated + limits.max_pending_inbound + limits.max_pending_outbound
    return pending + limits.max_active_inbound + limits.max_active_outbound


def compiled() -> Finding:
    """Whether the compiled code is in use."""
    advice = (
        "install a C compiler and the headers of Python and libcrypto, then run bin/setup: frames cost several times less"
    )
    return judge(
        "compiled", "yes" if NATIVE is not None else f"no: {WHY_NOT_NATIVE}", is_well=NATIVE is not None, advice=advice
    )


def files(loaded: Loaded) -> Iterator[Finding]:
    """Chain, node key and run directory."""
    settings = loaded.settings
    run_dir = run_dir_path(settings.run_dir, os.environ)
    steps = (
        ("chain", settings.chain, lambda: load_chain(settings.chain, loaded.origins["chain"])),
        (
            "node_key",
            str(node_key.key_file(settings.node_key, os.environ)),
            lambda: node_key.check_key(settings.node_key, os.environ),
        ),
        ("run_dir", str(run_dir), lambda: RunDir(run_dir).check_length()),
    )
    for check, found, step in steps:
        try:
            step()
        except ConfigError as error:
            yield Finding(check, State.FAIL, str(error), "see the message")
        else:
            yield Finding(check, State.OK, found)


def descriptors(settings: Settings, limit: int) -> Finding:
    """File descriptors against the hard limit, which the engine takes for itself and its workers."""
    needed = needs(settings)
    found = f"{limit} are allowed per process; the engine needs {needed.engine}, each worker {needed.worker}"
    try:
        check_descriptors(settings, limit)
    except ConfigError as error:
        return Finding("descriptors", State.FAIL, found, str(error))
    return Finding("descriptors", State.OK, found)


def cores(settings: Settings, available: int) -> Finding:
    """Workers against the cores that this process may use."""
    found = f"{settings.workers} workers on {available} cores"
    advice = f"--workers {available}: more than one per core hold more descriptors, but do no more work"
    return judge("cores", found, is_well=settings.workers <= available, advice=advice)


def memory(settings: Settings, kernel: Kernel) -> Finding:
    """The memory that is free against what sessions take, and against the worst case of all budgets."""
    sessions, workers = sessions_of(settings), settings.workers
    usual = ENGINE_BYTES + workers * WORKER_BYTES + sessions * SESSION_BYTES
    of_worker = (
        settings.queues.worker_progress_bytes
        + settings.events.worker_queue_bytes
        + settings.queues.worker_command_bytes
        + settings.feeds.total_queue_bytes
        + DATA_BYTES
    )
    worst = usual + workers * of_worker + settings.events.total_queue_bytes + REPLY_QUEUES_BYTES + MAX_OPEN_REQUEST_BYTES
    available = kernel.available_bytes()
    if available is None:
        return Finding(
            "memory", State.WARN, "the kernel does not say how much is free", f"{_mib(worst)} is enough in any case"
        )
    found = f"{_mib(available)} is available; {sessions} idle sessions take {_mib(usual)}, all budgets in use {_mib(worst)}"
    if available < usual:
        return Finding("memory", State.FAIL, found, "lower limits.max_active_inbound, or add memory")
    advice = "lower queues.worker_progress_bytes, feeds.total_queue_bytes and the budgets of [events], or add memory"
    return judge("memory", found, is_well=available >= worst, advice=advice)


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"


def port(settings: Settings) -> Iterator[Finding]:
    """Whether the port can be listened on, and whether peers elsewhere can reach it, as far as can be told from here."""
    if not settings.listen:
        yield Finding("port", State.OK, "the engine does not listen")
        return
    try:
        sock = listen(settings.listen)
    except OSError as error:
        yield _not_bound(settings, error)
    else:
        if sock is not None:
            sock.close()
        yield Finding("port", State.OK, f"{settings.listen} is free")
    host, number = parse_host_port(settings.listen)
    yield _address(settings, host, number)


def _not_bound(settings: Settings, error: OSError) -> Finding:
    found = f"{settings.listen}: {error.strerror or error}"
    if error.errno == errno.EADDRINUSE:
        if is_running(run_dir_path(settings.run_dir, os.environ)):
            return Finding("port", State.OK, f"{settings.listen} is in use, and the engine of this run directory runs")
        return Finding("port", State.FAIL, found, "end the program that has it (ss -ltnp), or choose another with --listen")
    if error.errno == errno.EACCES:
        return Finding("port", State.FAIL, found, "use a port from 1024 up, or allow it (CAP_NET_BIND_SERVICE)")
    return Finding("port", State.FAIL, found, "choose an address of this machine with --listen")


def is_running(run_dir: Path) -> bool:
    """Whether an engine answers in this run directory."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(run_dir / "control.ipc"))
        except OSError:
            return False
    return True


def _address(settings: Settings, host: str, number: int) -> Finding:
    """The address that our enode will name."""
    try:
        bound = socket.getaddrinfo(host or None, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][4][0]
        shown = dialable(settings.external_ip, str(bound))
        address = ipaddress.ip_address(shown.host.partition("%")[0])
    except (OSError, ValueError) as error:
        return Finding("address", State.WARN, f"{host}: {error}", "set --external-ip to the address that peers can dial")
    found = f"{address}{' (a guess from the interfaces)' if shown.is_guess else ''}"
    if address.is_loopback:
        return Finding(
            "address", State.WARN, f"{found}: loopback", "only this machine can connect: set --listen or --external-ip"
        )
    if not address.is_global:
        advice = f"forward TCP port {number} on the router to this machine, and set --external-ip to the router's address"
        return Finding("address", State.WARN, f"{found}: a private network, so there is probably a NAT before it", advice)
    return Finding(
        "address", State.OK, f"{found}; whether a firewall lets TCP port {number} in can be seen from outside only"
    )
