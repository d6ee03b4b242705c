"""The entry points of our programs, which prepare streams and signals before anything large is imported.

`python -m rlpx.engine` and the installed commands start here. A program is a module with `main`. An exception of `main`
becomes an exit code and at most one line; only bugs of ours show a traceback.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from types import FrameType
from typing import Final, NoReturn, cast

from rlpx.engine.process import stdio

# The exit code that a shell reports for a program ended by SIGINT.
EXIT_INTERRUPTED: Final = 130
# Signals that are sent out of habit or by mistake. By default they would end the program, and with it every session.
_IGNORED: Final = (signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2)


def engine() -> NoReturn:
    """`rlpx-engine`."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    # A SIGHUP (read the configuration again) stays pending until the engine can handle it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    is_doctor = sys.argv[1:2] == ["doctor"]
    _run("rlpx-engine", "rlpx.engine.doctor.command" if is_doctor else "rlpx.engine.__main__")


def ctl() -> NoReturn:
    """`rlpx-ctl`."""
    _run("rlpx-ctl", "rlpx.engine.cli.ctl")


def tail() -> NoReturn:
    """`rlpx-tail`."""
    _run("rlpx-tail", "rlpx.engine.cli.tail")


def swarm() -> NoReturn:
    """`rlpx-swarm`."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    is_plan = sys.argv[1:2] == ["plan"]
    _run("rlpx-swarm", "rlpx.engine.swarm.planning" if is_plan else "rlpx.engine.swarm.command")


def watch() -> NoReturn:
    """`rlpx-watch`."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    _run("rlpx-watch", "rlpx.engine.watch.command")


def cluster() -> NoReturn:
    """`rlpx-cluster`."""
    _run("rlpx-cluster", "rlpx.engine.cli.cluster")


def _run(program: str, module: str) -> NoReturn:
    stdio.open_missing()
    stdio.install()
    # A program that a script starts in the background ignores SIGINT, and must continue to.
    heeds_interrupts = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    if heeds_interrupts:
        signal.signal(signal.SIGINT, lambda number, frame: _interrupted(program, number, frame))
    # The launcher has blocked these until now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    code = exit_code(program, lambda: _main(module, heeds_interrupts=heeds_interrupts))
    # Only the interpreter's shutdown remains.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _interrupted(program: str, _number: int, _frame: FrameType | None) -> NoReturn:
    """End at once: during imports there is nothing to clean up, and the imported modules might catch an exception."""
    sys.stderr.write(f"{program}: interrupted\n")
    os._exit(EXIT_INTERRUPTED)


def _main(module: str, *, heeds_interrupts: bool) -> None:
    main = cast("Callable[[], None]", import_module(module).main)
    if heeds_interrupts:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()


def exit_code(program: str, main: Callable[[], None]) -> int:
    """Run the program and return its exit code. It is no error if the reader of our output has gone: it has read enough."""
    code = 0
    try:
        try:
            main()
        except SystemExit as end:
            if isinstance(end.code, str):
                sys.stderr.write(end.code + "\n")
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
    except stdio.OutputError as error:
        if error.errno == errno.EPIPE:
            return code
        sys.stderr.write(f"{program}: stdout: {error.strerror}\n")
        return code or os.EX_IOERR
    except KeyboardInterrupt:
        sys.stderr.write(f"{program}: interrupted\n")
        return EXIT_INTERRUPTED
    except Exception:  # noqa: BLE001 - the top of the process
        sys.stderr.write(traceback.format_exc())
        return os.EX_SOFTWARE
    return code
