"""The signals of a long-running program: end politely, end at once, read the configuration again, open
the log again, replace the workers.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import structlog

# `process/start.py` blocks the first three from the start, so that an early one waits until it can be handled. Early ones of
# the others are ignored: a log that was just opened, and workers that are just starting, are new.
HANDLED: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})

# A signal is acted on at once, and those that come within this time are acted on together after it. Reading the
# configuration takes some 20 ms, so that a program that sends SIGHUP without end takes a tenth of the loop's time.
PAUSE_SECONDS: Final = 0.2

log = structlog.get_logger()


class Paced:
    """Calls `act` at once, and once more after a pause for all calls that come within it."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._is_paused = False
        self._is_wanted = False

    def __call__(self) -> None:
        """Act, or remember that this is wanted."""
        if self._is_paused:
            self._is_wanted = True
            return
        self._is_paused = True
        asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._go_on)
        self._act()

    def _go_on(self) -> None:
        self._is_paused = False
        if self._is_wanted:
            self._is_wanted = False
            self()


class Signals:
    """Within `with`, the first SIGTERM or SIGINT calls `stop`, the second one `kill`, SIGHUP `reload`, SIGUSR1
    `reopen`, SIGUSR2 `restart`.

    Earlier signals are delivered on entry. On exit all are blocked, so that a late signal does not make an orderly end look
    like another.
    """

    def __init__(
        self,
        *,
        stop: Callable[[], None],
        kill: Callable[[], None],
        reload: Callable[[], None],
        reopen: Callable[[], None],
        restart: Callable[[], None],
    ) -> None:
        self._stop = stop
        self._kill = kill
        self._reload = reload
        self._reopen = reopen
        self._restart = restart
        self._ends = 0

    @property
    def is_stopping(self) -> bool:
        """Whether a signal has requested the end."""
        return self._ends > 0

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_end)
        for number, act in (
            (signal.SIGHUP, self._reload),
            (signal.SIGUSR1, self._reopen),
            (signal.SIGUSR2, self._restart),
        ):
            loop.add_signal_handler(number, Paced(act))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)

    def _on_end(self) -> None:
        self._ends += 1
        if self._ends == 1:
            self._stop()
        elif self._ends == 2:  # noqa: PLR2004 - the second of its kind
            self._kill()
            log.warning("second signal: ending without goodbyes")
