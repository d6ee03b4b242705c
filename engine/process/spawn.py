"""Starts our own modules as processes that inherit one socket."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

# Starts a process with one inherited descriptor.
StartProcess: TypeAlias = Callable[[int], "subprocess.Popen[bytes]"]

# The folder that contains the package, so that the child finds our modules where we do, even in a clone.
_IMPORT_PATH: Final = Path(__file__).parents[3]
# prctl(2)'s number: the signal that a process gets when its parent ends.
_PR_SET_PDEATHSIG: Final = 1


def end_with_parent() -> None:
    """Let the kernel end this process when its parent has ended, even if that was killed."""
    with suppress(AttributeError):  # only Linux's libc has it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def spawn(
    module: str, descriptor: int, blocked: Iterable[int], *arguments: str, has_output: bool
) -> subprocess.Popen[bytes]:
    """Start `python -m MODULE DESCRIPTOR ARGUMENTS`. Raises `OSError`.

    The `blocked` signals are blocked from the start, because a terminal or a supervisor sends them to the whole group.
    If `has_output`, the process writes to our own stdout and stderr; otherwise both are one pipe, and its stdin is empty.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-P", "-m", module, str(descriptor), *arguments],
            pass_fds=[descriptor],
            env={**os.environ, "PYTHONPATH": str(_IMPORT_PATH)},
            stdin=None if has_output else subprocess.DEVNULL,
            stdout=None if has_output else subprocess.PIPE,
            stderr=None if has_output else subprocess.STDOUT,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
