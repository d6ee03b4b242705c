"""Where our processes spend their time while a row is measured: py-spy's samples, by function."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

SAMPLES_PER_SECOND: Final = 250
SHOWN: Final = 25
NAMELESS: Final = re.compile(r"^0x[0-9a-f]+")
# Functions in which a thread sleeps: py-spy counts it as busy when it looks at native frames.
WAITS: Final = frozenset({"poll", "epoll_pwait", "epoll_wait"})
OURS: Final = re.compile(r" \((engine|workers|protocol)/")
# py-spy writes its file after the signal.
WRITE_SECONDS: Final = 30.0


def py_spy() -> str | None:
    """The py-spy program, from our environment or the path."""
    return shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")


@contextmanager
def profiled(pids: dict[str, list[int]], folder: Path) -> Iterator[None]:
    """Sample the processes, including native frames; then print the functions that took most time, by part."""
    program = py_spy()
    if program is None:
        sys.stderr.write("--profile: py-spy is not installed\n")
        yield
        return
    files = {part: [folder / f"profile-{pid}" for pid in numbers] for part, numbers in pids.items()}
    with ExitStack() as stack:
        for part, numbers in pids.items():
            for pid, file in zip(numbers, files[part], strict=True):
                stack.enter_context(_record(program, pid, file))
        yield
    for part, recorded in files.items():
        sys.stdout.write(f"\n{part}\n{top(''.join(file.read_text() for file in recorded if file.exists()))}")


@contextmanager
def _record(program: str, pid: int, file: Path) -> Iterator[None]:
    command = [program, "record", "--native", "--function", "--format", "raw", "--rate", str(SAMPLES_PER_SECOND)]
    process = subprocess.Popen(
        [*command, "--output", str(file), "--pid", str(pid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(WRITE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def top(raw: str) -> str:
    """From folded stacks (`a;b;c 7`): the functions that were sampled, then our functions with all that they call."""
    alone: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        # If a library has no symbols, only its name is known of an address.
        names = [NAMELESS.sub("in", name) for name in stack.split(";")]
        if names[-1].partition(" ")[0] in WAITS:
            continue
        alone[names[-1]] += int(count)
        within.update(dict.fromkeys(filter(OURS.search, names), int(count)))
    total = alone.total()
    lines = ["   share  alone"]
    lines += [f"{count / total:8.1%}  {name}" for name, count in alone.most_common(SHOWN)]
    lines += ["   share  of our functions, with what they call"]
    lines += [f"{count / total:8.1%}  {name}" for name, count in within.most_common(SHOWN)]
    return "\n".join(lines) + "\n"
