"""The number of file descriptors that the engine process and each worker may need under the given settings."""

from __future__ import annotations

from typing import Final

import msgspec

from rlpx.engine.settings.settings import Settings
from rlpx.protocol.bus.descriptors import RESERVE
from rlpx.protocol.mistakes import ConfigError

# Standard streams, event loop, listening sockets, locks, libraries: a process without sessions has 20 to 30 of them.
BASE_DESCRIPTORS: Final = 64
# For each worker the engine has a socket for handoffs, a stream, a process descriptor and the port of its data endpoint.
DESCRIPTORS_PER_WORKER: Final = 4


class Needs(msgspec.Struct, frozen=True):
    """The descriptors of the engine process, and of each worker if sessions are spread evenly."""

    engine: int
    worker: int


def needs(settings: Settings) -> Needs:
    """Return the largest numbers that the settings allow, including the reserve."""
    limits = settings.limits
    sessions = (
        limits.max_unauthenticated
        + limits.max_pending_inbound
        + limits.max_pending_outbound
        + limits.max_active_inbound
        + limits.max_active_outbound
        + limits.max_polite_refusals
    )
    share = -(-sessions // settings.workers)
    users = settings.control.max_connections + settings.events.max_subscribers
    return Needs(
        engine=users + DESCRIPTORS_PER_WORKER * settings.workers + BASE_DESCRIPTORS + RESERVE,
        worker=share + settings.queues.goodbyes + settings.responders.max_connections + BASE_DESCRIPTORS + RESERVE,
    )


def check_descriptors(settings: Settings, limit: int) -> None:
    """Check that the needs fit this limit per process. Raises `ConfigError` with the numbers."""
    needed = needs(settings)
    way = "raise it (ulimit -Hn, or LimitNOFILE= of systemd)"
    if needed.worker > limit:
        raise ConfigError(
            f"limits: each of {settings.workers} workers may need {needed.worker} file descriptors, "
            f"and {limit} are allowed: {way}, lower limits.max_active_inbound and the other limits, or use more workers"
        )
    if needed.engine > limit:
        raise ConfigError(
            f"control.max_connections: the engine may need {needed.engine} file descriptors, and {limit} are allowed: "
            f"{way}, or lower control.max_connections or events.max_subscribers"
        )
