"""`rlpx-engine doctor`: the command. It starts nothing and changes nothing.

If a library is missing, everything else would fail to load: then only what needs none of them is examined.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rlpx.engine.doctor import clock, kernel, libraries
from rlpx.engine.doctor.finding import Finding, State

if TYPE_CHECKING:
    # It needs all libraries.
    from rlpx.engine.settings.settings import Settings

PROGRAM: Final = "rlpx-engine doctor"
_MARKS: Final = {State.OK: "ok  ", State.WARN: "WARN", State.FAIL: "FAIL"}


def examine(arguments: Sequence[str] | None = None) -> tuple[list[Finding], bool]:
    """All findings, and whether they are wanted as JSON. Ends the program if an argument is wrong."""
    found = list(libraries.examine())
    if any(finding.state is State.FAIL for finding in found):
        return found, "--json" in (sys.argv[2:] if arguments is None else arguments)
    flags = _flags(arguments)
    return [*found, *_of_settings(flags), clock.examine(datetime.now(UTC), clock.read())], flags.json


def _flags(arguments: Sequence[str] | None) -> argparse.Namespace:
    from rlpx.engine.__main__ import add_settings  # noqa: PLC0415 - it needs all libraries
    from rlpx.engine.cli.terminal import Arguments  # noqa: PLC0415 - it needs all libraries

    parser = Arguments(
        prog=PROGRAM,
        description="Examine this machine and the settings, and say what to do. Starts nothing.",
        epilog="Exit code 0, or 78 if the engine could not run like this.",
    )
    parser.add_argument("--json", action="store_true", help="write JSON")
    add_settings(parser)
    return parser.parse_args(sys.argv[2:] if arguments is None else arguments)


def _of_settings(flags: argparse.Namespace) -> Iterator[Finding]:
    """The findings that depend on the settings; with the defaults if those given are wrong."""
    from rlpx.engine.__main__ import load_settings  # noqa: PLC0415 - it needs all libraries
    from rlpx.engine.doctor import needs  # noqa: PLC0415 - it needs all libraries
    from rlpx.engine.settings.load import Loaded  # noqa: PLC0415 - it needs all libraries
    from rlpx.engine.settings.settings import Settings  # noqa: PLC0415 - it needs all libraries
    from rlpx.protocol.mistakes import ConfigError  # noqa: PLC0415 - it needs all libraries
    from rlpx.protocol.rlpx.host_port import parse_host_port  # noqa: PLC0415 - it needs all libraries

    yield needs.compiled()
    try:
        loaded = load_settings(flags)
    except ConfigError as error:
        yield Finding("settings", State.FAIL, str(error), "correct it; what follows is about the defaults")
        loaded = Loaded(Settings(), {"chain": "default"})
    else:
        yield Finding("settings", State.OK, "valid")
        yield from needs.files(loaded)
    settings = loaded.settings
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield needs.descriptors(settings, limit)
    yield needs.cores(settings, len(os.sched_getaffinity(0)))
    yield needs.memory(settings, kernel.Kernel())
    yield from needs.port(settings)
    if settings.cluster:
        yield from _of_cluster(settings)
    limits = settings.limits
    outbound = limits.max_active_outbound + limits.max_pending_outbound
    port = parse_host_port(settings.listen)[1] if settings.listen else 0
    yield from kernel.examine(kernel.Kernel(), needs.sessions_of(settings), outbound, port)


def _of_cluster(settings: Settings) -> Iterator[Finding]:
    """The findings about the servers of the fleet that the host is to join."""
    try:
        from rlpx.engine.doctor import cluster  # noqa: PLC0415 - it needs the libraries of an extra
    except ImportError as error:
        advice = "pip install 'rlpx-engine[cluster]'"
        yield Finding("cluster.library", State.FAIL, f"nats-py cannot be loaded: {error}", advice)
        return
    yield from cluster.examine(settings)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    found, is_json = examine(arguments)
    worst = State.FAIL if any(item.state is State.FAIL for item in found) else State.OK
    if is_json:
        text = json.dumps({"ok": worst is State.OK, "findings": [item.as_dict() for item in found]}, indent=2) + "\n"
    else:
        text = as_text(found)
    sys.stdout.write(text)
    sys.stdout.flush()
    sys.exit(os.EX_CONFIG if worst is State.FAIL else 0)


def as_text(found: list[Finding]) -> str:
    """A line for each finding, with the advice below it, and the sums."""
    width = max(len(item.check) for item in found)
    lines = []
    for item in found:
        lines.append(f"{_MARKS[item.state]}  {item.check:<{width}}  {item.found}")
        if item.advice:
            lines.append(f"{'':6}{'':<{width}}  -> {item.advice}")
    sums = ", ".join(f"{sum(item.state is state for item in found)} {state}" for state in State)
    return "\n".join([*lines, sums]) + "\n"
