"""Compiled code beside its Python twin under AddressSanitizer and UndefinedBehaviorSanitizer.

`bin/fuzz --sanitized` looks for more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.protocol.c.builds import ROOT, CannotBuildError, sanitized
from tests.system.harness import IMPORT_PATH

CONTRACT = "test_the_contract_holds_for_what_is_kept"
# Every test of compiled code, and the inputs of targets that run it: 20 s on a quiet machine.
TESTS = [
    *(
        f"tests/protocol/{name}.py"
        for name in (
            "rlpx/test_frames",
            "rlpx/test_tally",
            "rlpx/test_p2p",
            "rlpx/test_ecies",
            "rlpx/test_crypto",
            "test_rlp",
            "test_native",
        )
    ),
    *(f"tests/fuzz/test_kept.py::{CONTRACT}[{name}]" for name in ("rlp", "rlp-first", "ecies", "handshake", "frames")),
    *(
        f"tests/fuzz/test_kept.py::{CONTRACT}[{name}]"
        for name in ("frame-noise", "snappy", "session-frames", "session-bytes")
    ),
]
# Those that run by Python alone say nothing here; mypy, which looks at the types, takes minutes under a sanitizer.
CHOSEN = f"(compiled or native or {CONTRACT}) and not types"


@pytest.mark.long
@pytest.mark.timeout(600)  # many times slower than the plain tests, on a machine with other work
def test_no_access_out_of_bounds_and_no_undefined_behaviour(tmp_path: Path) -> None:
    try:
        build = sanitized(tmp_path)
    except CannotBuildError as error:
        pytest.skip(str(error))
    report = tmp_path / "report"
    environment = build.environment
    for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
        # A file: pytest holds stderr while a test runs.
        environment[name] += f":log_path={report}"
    command = [sys.executable, "-P", "-m", "tests.protocol.c.sanitized", str(build.file)]
    command += ["pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", CHOSEN, *TESTS]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    reports = "".join(file.read_text(errors="replace") for file in sorted(tmp_path.glob("report*")))
    assert not reports, reports
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]


def test_the_build_finds_what_it_is_for(tmp_path: Path) -> None:
    """A read beyond the end of an object, which the plain build would not notice, ends the process."""
    try:
        build = sanitized(tmp_path)
    except CannotBuildError as error:
        pytest.skip(str(error))
    lines = (
        "import ctypes, rlpx.protocol.native; assert rlpx.protocol.native.NATIVE; ctypes.string_at(id(object()) + 16, 64)"
    )
    (tmp_path / "beyond.py").write_text(lines)
    environment = {**build.environment, "PYTHONPATH": f"{IMPORT_PATH}:{tmp_path}"}
    command = [sys.executable, "-P", "-m", "tests.protocol.c.sanitized", str(build.file), "beyond"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode != 0
    assert "AddressSanitizer" in ran.stderr


def test_it_compiles_without_a_warning(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    command = ["sh", str(ROOT / "bin" / "compile"), sys.executable, str(tmp_path)]
    environment = {**os.environ, "CFLAGS": "-Werror -Wshadow -Wstrict-prototypes -Wpointer-arith -Wvla"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
