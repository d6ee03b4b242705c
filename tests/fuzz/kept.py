"""The inputs that are kept, in one folder per target: each takes a step in `protocol/` that no smaller one takes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any, Final

from rlpx.protocol import errors
from tests.fuzz.targets import Target

CORPUS: Final = Path(__file__).parent / "corpus"
# Most findings are short; one that needs more than this to reach a branch is not worth its place in the repository.
MAX_KEPT_BYTES: Final = 1024
_CODE: Final = str(Path(errors.__file__).parent)

# A file, a line, and the line before it in the same function.
Step = tuple[str, int, int]


def read(folder: Path) -> list[bytes]:
    """The inputs in a folder, in the order of their names; none if there is no folder."""
    return [file.read_bytes() for file in sorted(folder.glob("*"))]


def write(folder: Path, inputs: Iterable[bytes]) -> None:
    """Make a folder hold these inputs and no other."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*"):
        file.unlink()
    for data in inputs:
        (folder / sha256(data).hexdigest()[:16]).write_bytes(data)


def minimised(target: Target, inputs: Iterable[bytes]) -> list[bytes]:
    """The smallest inputs that together take every step that any of them takes."""
    kept = []
    taken: set[Step] = set()
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        new = steps(target, data) - taken if len(data) <= MAX_KEPT_BYTES else set()
        if new:
            taken |= new
            kept.append(data)
    return kept


def steps(target: Target, data: bytes) -> set[Step]:
    """The steps that an input takes in `protocol/`."""
    taken: set[Step] = set()

    def on_call(frame: FrameType, _event: str, _arg: Any) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(_CODE):
            return None
        before = 0

        def on_line(frame: FrameType, event: str, _arg: Any) -> Any:
            nonlocal before
            if event == "line":
                taken.add((file, before, frame.f_lineno))
                before = frame.f_lineno
            return on_line

        return on_line

    # Coverage measurement of the tests themselves continues afterwards.
    before_us = sys.gettrace()
    sys.settrace(on_call)
    try:
        target(data)
    finally:
        sys.settrace(before_us)
    return taken
