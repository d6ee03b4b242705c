"""The modules that a program loads to use an engine: none that decides, and no library that only some programs need."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

from tests.system.harness import IMPORT_PATH

# Cryptography is for CURVE, enodes and block hashes; no program here needs asyncio and ssl.
HEAVY: Final = {"coincurve", "cryptography", "nacl", "sha3", "cramjam", "structlog", "asyncio", "ssl", "hashlib", "tomllib"}
# 187 with Python 3.11, of which 36 are ours.
MAX_MODULES: Final = 220


def loaded_by(code: str) -> set[str]:
    """The modules that a program with this code has loaded at its end."""
    program = f"{code}\nimport sys\nprint(*sys.modules)"
    output = subprocess.check_output(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{program}"],
        env={"PYTHONPATH": IMPORT_PATH},
        text=True,
    )
    return set(output.split())


@pytest.mark.parametrize(
    "code",
    [
        "import rlpx.engine.client",
        "from rlpx.engine.client import Client, Subscriber; Client('ipc:///nowhere').close()",
        "from rlpx.engine.client import Subscriber; Subscriber('tcp://127.0.0.1:1', ['eth.']).close()",
    ],
)
def test_a_program_that_reads_and_commands_loads_little(code: str) -> None:
    found = loaded_by(code)
    assert found & HEAVY == set()
    assert {name for name in found if name.startswith("rlpx.engine.") and not name.startswith("rlpx.engine.client")} == set()
    assert len(found) <= MAX_MODULES


def test_a_program_on_asyncio_loads_no_cryptography_and_no_messages() -> None:
    found = loaded_by("from rlpx.engine.client import connect; connect('/nowhere')")
    # ssl comes with asyncio.
    assert found & HEAVY <= {"asyncio", "ssl", "hashlib"}
    assert "rlpx.protocol.eth.messages" not in found


def test_a_program_that_asks_peers_loads_their_messages() -> None:
    assert "rlpx.protocol.eth.messages" in loaded_by("from rlpx.engine.client import Peer")


def test_what_there_is_not_is_an_attribute_error() -> None:
    assert "caught" in loaded_by(
        "import rlpx.engine.client\ntry:\n    rlpx.engine.client.Pear\nexcept AttributeError:\n    import sys\n"
        "    sys.modules['caught'] = sys"
    )
