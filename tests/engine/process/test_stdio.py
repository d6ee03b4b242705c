"""The standard streams of our programs: nothing that happens to them stops a program from working."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, cast

import pytest

from rlpx.engine.process import stdio
from rlpx.engine.process.stdio import OUTLET_QUEUE_CHARACTERS, Descriptor, Outlet, OutputError, Product, Quiet
from tests.system.harness import IMPORT_PATH


class Stream(io.StringIO):
    """A stream that fails if the test asks for it, and waits while the test holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.is_free = threading.Event()
        self.is_free.set()

    def write(self, text: str, /) -> int:
        """Write, wait or fail."""
        assert self.is_free.wait(10)
        if self.error is not None:
            raise self.error
        return super().write(text)


# -- descriptors ------------------------------------------------------------------------------------------------------------


def test_all_is_written_where_the_descriptor_is_non_blocking_and_full() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    got = bytearray()

    def read() -> None:
        while chunk := os.read(reading, 1 << 16):
            got.extend(chunk)

    reader = threading.Thread(target=read)
    try:
        threading.Timer(0.1, reader.start).start()
        assert Descriptor(writing).write(b"x" * 1_000_000) == 1_000_000
    finally:
        os.close(writing)
        reader.join(10)
        os.close(reading)
    assert bytes(got) == b"x" * 1_000_000


def test_what_follows_half_a_line_begins_on_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    written = bytearray()
    room = [5]

    def write(_descriptor: int, data: memoryview) -> int:
        part = bytes(data[: room[0]])
        if not part:
            raise OSError(errno.ENOSPC, "full")
        written.extend(part)
        room[0] -= len(part)
        return len(part)

    descriptor = Descriptor(1)
    monkeypatch.setattr("rlpx.engine.process.stdio.os.write", write)
    for _ in range(2):
        with pytest.raises(OSError, match="full"):
            descriptor.write(b"a long line\n")
    room[0] = 100
    descriptor.write(b"next\n")
    descriptor.write(b"last\n")
    assert bytes(written) == b"a lon\nnext\nlast\n"


def test_stdout_that_cannot_be_written_is_said_once() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        product = Product(full.fileno())
        with pytest.raises(OutputError) as caught:
            product.write(b"x")
        assert (caught.value.errno, caught.value.strerror) == (errno.ENOSPC, "No space left on device")
        assert product.write(b"what is flushed at the end") == 26


@pytest.mark.parametrize("error", [OSError(errno.EIO, "gone"), ValueError("closed")], ids=repr)
def test_a_quiet_stream_drops_what_it_cannot_write(error: Exception) -> None:
    stream = Stream()
    quiet = Quiet(stream)
    assert quiet.write("one") == 3
    stream.error = error
    assert quiet.write("two") == 3
    quiet.flush()
    assert stream.getvalue() == "one"
    assert not quiet.isatty()


# -- outlets ----------------------------------------------------------------------------------------------------------------


def test_an_outlet_keeps_the_order_of_its_lines() -> None:
    stream = Stream()
    outlet = Outlet(stream)
    for number in range(1000):
        outlet.write(f"{number}\n")
    outlet.finish(10)
    assert stream.getvalue() == "".join(f"{number}\n" for number in range(1000))
    assert outlet.lost_lines == 0


def test_nobody_waits_for_an_outlet_and_what_goes_beyond_its_bound_is_counted() -> None:
    stream = Stream()
    stream.is_free.clear()
    outlet = Outlet(stream)
    line = "x" * 1023 + "\n"
    for _ in range(OUTLET_QUEUE_CHARACTERS // len(line) + 7):
        outlet.write(line)
    assert outlet.lost_lines == 7
    stream.is_free.set()
    outlet.finish(10)
    assert len(stream.getvalue()) == OUTLET_QUEUE_CHARACTERS


def test_the_end_does_not_wait_for_ever_for_a_reader() -> None:
    stream = Stream()
    stream.is_free.clear()
    outlet = Outlet(stream)
    outlet.write("unread\n")
    outlet.finish(0.01)
    stream.is_free.set()
    outlet.finish(10)


def test_lines_that_fail_are_counted_with_their_cause_and_the_next_ones_are_written() -> None:
    stream = Stream()
    causes: list[str] = []
    outlet = Outlet(stream, causes.append)
    stream.error = OSError(errno.ENOSPC, "No space left on device")
    outlet.write("one\ntwo\n")
    stream.error = None if _eventually(lambda: outlet.lost_lines == 2) else stream.error
    outlet.write("three\n")
    outlet.finish(10)
    assert (stream.getvalue(), causes) == ("three\n", ["No space left on device"])


def _eventually(condition: Callable[[], bool]) -> bool:
    waiting = threading.Event()
    for _ in range(1000):
        if condition():
            return True
        waiting.wait(0.01)
    return False


def test_outlets_write_to_the_streams_that_were_there_and_put_them_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with stdio.outlets(lambda _cause: None):
        assert isinstance(sys.stderr, Outlet)
        print("out")  # noqa: T201 - any library might
        sys.stderr.write("err\n")
        sys.stdout.flush()
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("out\n", "err\n")


def test_what_is_behind_a_program_s_own_streams_raises_and_has_no_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    stdio.install()
    out, err = sys.stdout, sys.stderr
    assert (out.encoding, out.errors) == ("utf-8", "backslashreplace")
    for stream in (out, err):
        behind = cast("Any", stdio.text_behind(stream))
        assert isinstance(behind.buffer, Descriptor)
        assert not isinstance(behind.buffer, Product)
        assert behind.write_through
    other = cast("TextIO", io.StringIO())
    assert stdio.text_behind(other) is other


# -- missing descriptors ----------------------------------------------------------------------------------------------------

# Closes some descriptors, opens the missing ones, and prints what each one is and whether it can be written.
MISSING = """
import json, os, sys
told = os.dup(1)
for number in map(int, sys.argv[1:]):
    os.close(number)
from rlpx.engine.process import stdio
stdio.open_missing()
def works(number):
    try:
        return os.write(number, b"")
    except OSError as error:
        return error.strerror
found = [(os.readlink(f"/proc/self/fd/{number}"), os.get_inheritable(number), works(number)) for number in (0, 1, 2)]
os.write(told, json.dumps(found).encode())
"""


@pytest.mark.parametrize("closed", [[], ["0"], ["1"], ["2"], ["0", "1", "2"]], ids=str)
def test_closed_descriptors_are_taken_and_cannot_be_written(closed: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MISSING, *closed],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
        check=True,
    )
    for number, (place, is_inheritable, works) in enumerate(json.loads(done.stdout)):
        assert is_inheritable
        if str(number) in closed and number:
            assert (place, works) == ("/dev/null", "Bad file descriptor")
