"""The machine's clock: whether something keeps it right. Forks by time and the times of events depend on it."""

from __future__ import annotations

import ctypes
from datetime import UTC, datetime
from typing import Final

from rlpx.engine.doctor.finding import Finding, State

# adjtimex(2): the clock is not synchronised.
TIME_ERROR: Final = 5
STA_UNSYNC: Final = 0x40
# Beyond this, peers of the next fork and we would disagree for a noticeable time.
MAX_ERROR_SECONDS: Final = 5.0
# This program did not exist before.
EARLIEST: Final = datetime(2025, 1, 1, tzinfo=UTC)
_ADVICE: Final = "start systemd-timesyncd or chrony (in a container or a virtual machine: on the host)"


class Timex(ctypes.Structure):
    """`struct timex` up to the fields that are read; the rest is room for what the kernel writes."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def read() -> tuple[int, int, float] | None:
    """The state and status of adjtimex(2), and the largest error in seconds; nothing if it cannot be asked."""
    timex = Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except AttributeError:
        return None
    return None if state < 0 else (state, timex.status, timex.maxerror / 1_000_000)


def examine(now: datetime, found: tuple[int, int, float] | None) -> Finding:
    """The finding about the clock."""
    if now < EARLIEST:
        return Finding("clock", State.FAIL, f"it is {now:%Y-%m-%d} here", f"set the clock, and {_ADVICE}")
    if found is None:
        return Finding("clock", State.WARN, "the kernel does not say whether it is right", _ADVICE)
    state, status, error_seconds = found
    if state == TIME_ERROR or status & STA_UNSYNC:
        return Finding("clock", State.WARN, "not synchronised, as far as the kernel knows", _ADVICE)
    if error_seconds > MAX_ERROR_SECONDS:
        return Finding("clock", State.WARN, f"right within {error_seconds:.1f} s only", _ADVICE)
    return Finding("clock", State.OK, f"synchronised, right within {error_seconds * 1000:.0f} ms")
