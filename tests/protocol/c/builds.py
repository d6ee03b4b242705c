"""Special builds of `protocol/c` and of what is loaded before it, with the environment in which Python runs with each."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final, NamedTuple

from tests.system.harness import IMPORT_PATH

ROOT: Final = Path(__file__).resolve().parents[3]
FAILING_MALLOC: Final = Path(__file__).with_name("failing_malloc.c")
EVERY_KECCAK: Final = Path(__file__).with_name("every_keccak.c")
# -O1 with frame pointers: stacks that can be read, at half the speed of -O2.
SANITIZED_FLAGS: Final = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
# AddressSanitizer sees every object of Python only where malloc makes each; Python itself ends with memory that it holds.
SANITIZED_ENVIRONMENT: Final = {
    "PYTHONMALLOC": "malloc",
    "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    # By default pycryptodome, the oracle of the tests, loads its libraries in a way that AddressSanitizer refuses.
    "PYCRYPTODOME_DISABLE_DEEPBIND": "1",
}


class CannotBuildError(Exception):
    """What the machine lacks, in one line."""


class Build(NamedTuple):
    """A file that was built, and the environment for a Python that loads it."""

    file: Path
    environment: dict[str, str]


def sanitized(folder: Path) -> Build:
    """The compiled module with AddressSanitizer and UndefinedBehaviorSanitizer. Raises `CannotBuildError`."""
    runtime = Path(_output([*_compiler(), "-print-file-name=libasan.so"]))
    # Where there is none, the compiler prints the bare name back.
    if not runtime.is_absolute():
        raise CannotBuildError("no libasan: install the compiler's sanitizers")
    flags = {**os.environ, "CFLAGS": f"{os.environ.get('CFLAGS', '')} {SANITIZED_FLAGS}"}
    file = _output(["sh", str(ROOT / "bin" / "compile"), sys.executable, str(folder)], flags)
    return Build(Path(file), {**_environment(runtime), **SANITIZED_ENVIRONMENT})


def failing_malloc(folder: Path) -> Build:
    """`failing_malloc.c`, to be loaded before libc. Raises `CannotBuildError`."""
    if platform.libc_ver()[0] != "glibc":
        raise CannotBuildError("failing_malloc.c stands on names of glibc")
    file = folder / "failing_malloc.so"
    headers = f"-I{sysconfig.get_path('include')}"
    _output([*_compiler(), "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", headers, str(FAILING_MALLOC), "-o", str(file)])
    return Build(file, {**_environment(file), "PYTHONMALLOC": "malloc"})


def every_keccak(folder: Path) -> Path:
    """`every_keccak.c` as a library. It includes no function of Python. Raises `CannotBuildError`."""
    file = folder / "every_keccak.so"
    headers = [f"-I{sysconfig.get_path('include')}", f"-I{ROOT / 'protocol' / 'c'}"]
    _output([*_compiler(), "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", *headers, str(EVERY_KECCAK), "-o", str(file)])
    return file


def _compiler() -> list[str]:
    words = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(words[0]) is None:
        raise CannotBuildError(f"no C compiler: {words[0]}")
    return words


def _environment(preloaded: Path) -> dict[str, str]:
    return {**os.environ, "LD_PRELOAD": str(preloaded), "PYTHONPATH": IMPORT_PATH}


def _output(command: list[str], environment: dict[str, str] | None = None) -> str:
    made = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if made.returncode:
        raise CannotBuildError(f"{command[0]} failed: {made.stderr.strip() or made.stdout.strip()}")
    return made.stdout.strip()
