"""One target under libFuzzer, which alone needs atheris: `python -m tests.fuzz.one TARGET [libFuzzer's arguments]`."""

from __future__ import annotations

import sys

import atheris

# Modules imported here are instrumented: an input that takes a new branch in them is kept and mutated further.
with atheris.instrument_imports(include=["rlpx.protocol"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
