"""Fuzz the decoders and the session of `protocol/`: one target after the other, each in a process of its own.

What a target finds is kept in `.build/fuzz/TARGET/` from run to run. An input that breaks a contract ends the target: it is
printed as hex, with its file and the traceback, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

from tests.fuzz import kept
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS
from tests.protocol.c.builds import CannotBuildError, sanitized

BUILD: Final = Path(__file__).parents[2] / ".build" / "fuzz"
RUNS: Final = 1_000_000
EXIT_UNAVAILABLE: Final = 69
# Room for every message with a few elements; longer inputs are slower and find nothing new.
MAX_INPUT_BYTES: Final = 1024
# One input takes milliseconds at most, so one that takes this long hangs.
HANG_SECONDS: Final = 30
TRACEBACK_LINES: Final = 40


def main() -> int:
    """Run the chosen targets; returns whether all contracts held."""
    parser = argparse.ArgumentParser(prog="bin/fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"all unless named: {', '.join(TARGETS)}")
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help=f"inputs a target, {RUNS:,} unless said")
    parser.add_argument(
        "--keep", action="store_true", help="choose the inputs in tests/fuzz/corpus again, from all that was found"
    )
    parser.add_argument(
        "--sanitized",
        action="store_true",
        help="protocol/c with AddressSanitizer and UBSan: changes what was found before, without looking at coverage",
    )
    options = parser.parse_args()
    unknown = set(options.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    names = options.targets or list(TARGETS)
    if not options.sanitized:
        python = Python([], dict(os.environ))
    else:
        (BUILD / "sanitized").mkdir(parents=True, exist_ok=True)
        try:
            build = sanitized(BUILD / "sanitized")
        except CannotBuildError as error:
            say(f"bin/fuzz: --sanitized: {error}")
            return EXIT_UNAVAILABLE
        python = Python(["-m", "tests.protocol.c.sanitized", str(build.file)], build.environment)
    holds = [fuzz(name, options.runs, python) for name in names]
    if options.keep and all(holds):
        for name in names:
            keep(name)
    return 0 if all(holds) else 1


class Python(NamedTuple):
    """How a target's process is started: arguments in front of its module, and the environment."""

    arguments: list[str]
    environment: dict[str, str]


def fuzz(name: str, runs: int, python: Python) -> bool:
    """Give one target this many inputs; returns whether its contract held."""
    folder = BUILD / name
    found, begun = folder / "found", folder / "seeds"
    found.mkdir(parents=True, exist_ok=True)
    kept.write(begun, seeds()[name])
    arguments = [
        f"-runs={runs}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={HANG_SECONDS}",
        f"-artifact_prefix={folder}/broken-",
        *(str(place) for place in (found, begun, kept.CORPUS / name) if place.exists()),
    ]
    started = time.monotonic()
    log = folder / "log"
    with log.open("wb") as output:
        # The module is an argument of the module that loads the sanitized build.
        module = ["-m", "tests.fuzz.one"] if not python.arguments else [*python.arguments, "tests.fuzz.one"]
        command = [sys.executable, "-P", *module, name, *arguments]
        environment = python.environment
        holds = subprocess.run(command, stdout=output, stderr=output, check=False, env=environment).returncode == 0
    seconds = time.monotonic() - started
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    branches = [int(match[1]) for line in lines if (match := re.search(r"\bcov: (\d+)", line))] or [0]
    count = max([int(match[1]) for line in lines if (match := re.match(r"#(\d+)\s", line))], default=0)
    say(f"{name:<16}{count:>12,} inputs  {seconds:>6.0f} s  coverage {branches[0]:>5} to {branches[-1]:>5}")
    if not holds:
        say("\n".join(lines[-TRACEBACK_LINES:]))
        for file in (Path(match[1]) for line in lines if (match := re.search(r"Test unit written to (.+)", line))):
            say(f"{file}\n{file.read_bytes().hex()}")
    return holds


def keep(name: str) -> None:
    """Choose again which inputs of one target are kept in the repository."""
    places = (BUILD / name / "found", BUILD / name / "seeds", kept.CORPUS / name)
    inputs = [data for place in places for data in kept.read(place)]
    kept.write(kept.CORPUS / name, kept.minimised(TARGETS[name], inputs))


def say(text: str) -> None:
    """Print a line of the report at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
