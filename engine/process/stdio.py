"""The standard streams of our programs. They are opened before everything else, and never stop a program from working.

If stdout is the purpose of a program, a failed write raises `OutputError`. The engine waits for neither stream. Importing
this module changes nothing; only programs call its functions.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# Some thousands of lines: nothing is lost if a terminal stops for seconds. One that stays stopped costs this much memory.
OUTLET_QUEUE_CHARACTERS: Final = 1024 * 1024
# The time for writing the last lines at the end.
LAST_LINES_SECONDS: Final = 1.0
# The buffer of stdout between two flushes: a table of some hundred rows takes one write.
_STDOUT_BUFFER_BYTES: Final = 64 * 1024
_STDIN, _STDOUT, _STDERR = range(3)


class OutputError(OSError):
    """A write to stdout has failed; `errno` and `strerror` say why."""


class Descriptor(io.RawIOBase):
    """A descriptor that is written completely, even if another program has made it non-blocking. It is never closed.

    If a write fails part-way, for example on a full disk, the next write begins on a new line.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._is_cut = False

    def fileno(self) -> int:
        """The number of the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """True, as `io` asks for it."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all data. Raises `OSError`, after which a part may have been written."""
        total = memoryview(data).nbytes
        rest = memoryview(b"\n" + bytes(data) if self._is_cut else bytes(data))
        whole = len(rest)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                waiting = select.poll()
                waiting.register(self._descriptor, select.POLLOUT)
                waiting.poll()
            except OSError:
                self._is_cut = self._is_cut or len(rest) < whole
                raise
        self._is_cut = False
        return total


class Product(Descriptor):
    """stdout of a program whose purpose it is. The first failed write raises `OutputError`; later writes are dropped."""

    _has_failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        """See the class."""
        if not self._has_failed:
            try:
                return super().write(data)
            except OSError as error:
                self._has_failed = True
                raise OutputError(error.errno, error.strerror) from error
        return memoryview(data).nbytes


class Quiet(io.TextIOBase):
    """stderr of a program that keeps working if its messages cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream

    def write(self, text: str, /) -> int:
        """Write the text, or drop it if it cannot be written."""
        with suppress(OSError, ValueError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """See `write`."""
        with suppress(OSError, ValueError):
            self.stream.flush()

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """The descriptor."""
        return self.stream.fileno()


class Outlet(Quiet):
    """A stream that never makes its writer wait: a thread writes the text, in order.

    At most `OUTLET_QUEUE_CHARACTERS` wait to be written. Text beyond that, or that cannot be written, is lost, and its lines
    are counted. After each failed write, the thread calls `on_lost` with the cause. If `closes_stream`, it closes the stream
    after the last text.
    """

    def __init__(self, stream: TextIO, on_lost: Callable[[str], None] | None = None, *, closes_stream: bool = False) -> None:
        super().__init__(stream)
        self.lost_lines = 0
        self._on_lost = on_lost
        self._closes_stream = closes_stream
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._waiting_characters = 0
        # Reentrant, because a destructor or a signal handler may write while the same thread is writing.
        self._lock = threading.RLock()
        self._thread = threading.Thread(target=self._write_all, name="outlet", daemon=True)
        self._thread.start()

    def write(self, text: str, /) -> int:
        """Pass the text to the thread; never waits and never raises."""
        with self._lock:
            has_room = self._waiting_characters + len(text) <= OUTLET_QUEUE_CHARACTERS
            if has_room:
                self._waiting_characters += len(text)
            else:
                self.lost_lines += text.count("\n")
        if has_room:
            self._queue.put(text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread flushes after each write."""

    def finish(self, seconds: float = LAST_LINES_SECONDS) -> None:
        """Write what is still queued, for a limited time."""
        self._queue.put(None)
        self._thread.join(seconds)

    def _write_all(self) -> None:
        while (text := self._queue.get()) is not None:
            try:
                self.stream.write(text)
                self.stream.flush()
            except (OSError, ValueError) as error:
                with self._lock:
                    self.lost_lines += text.count("\n")
                if self._on_lost is not None:
                    self._on_lost(getattr(error, "strerror", None) or str(error))
            with self._lock:
                self._waiting_characters -= len(text)
        if self._closes_stream:
            with suppress(OSError):
                self.stream.close()


def open_missing() -> None:
    """Open /dev/null as each closed descriptor from 0 to 2, before a socket gets its number.

    It is opened for reading, so that a write fails as it does on a closed descriptor.
    """
    for descriptor in (_STDIN, _STDOUT, _STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            # `open` takes the lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)


def install() -> None:
    """Make `sys.stdout` a `Product` and `sys.stderr` a `Quiet`; both escape characters that their encoding lacks."""
    out = io.BufferedWriter(Product(_STDOUT), _STDOUT_BUFFER_BYTES)
    sys.stdout = io.TextIOWrapper(
        out, _encoding(sys.stdout), "backslashreplace", newline="\n", line_buffering=os.isatty(_STDOUT)
    )
    sys.stderr = cast("TextIO", Quiet(loud(_STDERR, _encoding(sys.stderr))))


@contextmanager
def outlets(on_lost: Callable[[str], None]) -> Iterator[None]:
    """Make stdout and stderr `Outlet`s within the context. If text on stdout is lost, `on_lost` is called with the cause."""
    before = sys.stdout, sys.stderr
    out, err = Outlet(text_behind(before[0]), on_lost), Outlet(text_behind(before[1]))
    sys.stdout, sys.stderr = cast("TextIO", out), cast("TextIO", err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        out.finish()
        err.finish()


def loud(descriptor: int, encoding: str) -> TextIO:
    """Return an unbuffered text stream to a descriptor. A buffer held by a stuck thread could not be closed at the end."""
    raw: Any = Descriptor(descriptor)
    return io.TextIOWrapper(raw, encoding, "backslashreplace", newline="\n", write_through=True)


def text_behind(stream: TextIO) -> TextIO:
    """Return the stream behind one made by `install`, whose failed writes raise; return any other stream unchanged."""
    if isinstance(stream, Quiet):
        return stream.stream
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return loud(raw.fileno(), stream.encoding) if isinstance(raw, Product) else stream


def _encoding(stream: TextIO | None) -> str:
    """Return the encoding that Python chose for a stream, or UTF-8 if its descriptor was closed at the start."""
    return stream.encoding if stream is not None else "utf-8"
