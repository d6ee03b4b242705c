"""What is installed has one import name, `rlpx`: it collides with nothing of a user's, and type checkers see its types.

Clone and wheel in new environments of each Python that is supported and is here.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from rlpx.engine.settings.chain import load_chain
from tests.packaging.installations import OUR_VERSION, VERSIONS, Clone, Environment, copy_clone, find_python, run
from tests.system import readme_programs as programs
from tests.system.harness import ROOT, RunningEngine, eventually, working_folder
from tests.system.peers import Peer
from tests.system.readme_programs import Installation

PYRIGHT: Final = Path(__file__).resolve().parent / "pyright"
# A user's program, and the types that its checker must show, in this order.
TYPED: Final = """
from rlpx.engine.client import BlockingPeer, Event, Gap, Lost, Request, Snapshot, connect
from rlpx.protocol.eth.messages import BlockHeaders, GetBlockHeaders, HeadersQuery


def ask(peer: BlockingPeer) -> bytes:
    return peer.request(GetBlockHeaders(0, HeadersQuery(start=1, limit=2)), timeout=5).headers[0].hash


def first(topic: str) -> str:
    with connect() as engine, engine.feed(topic, client="Geth", sample=2) as feed:
        reveal_type(engine)
        reveal_type(ask(engine.peer(1)))
        for item in feed:
            match item:
                case Gap():
                    reveal_type(item.missed)
                case Event():
                    reveal_type(item.payload)
                    return item.topic
                case Snapshot():
                    reveal_type(item.sessions[0].client)
                case Lost():
                    return item.cause
    return ""


def answer(request: Request) -> BlockHeaders | None:
    return BlockHeaders(0) if request.version > 68 else None


async def table() -> int:
    async with connect("tcp://127.0.0.1:5555", key="monitor.secret") as engine:
        reveal_type(engine)
        engine.respond("eth.GetBlockHeaders", answer)
        reveal_type(await engine.dial("enode://", wait=True, timeout=60))
        async with engine.feed("session.") as feed:
            async for item in feed:
                if isinstance(item, Snapshot):
                    return len(item.sessions)
    return 0
"""
TYPES: Final = ("BlockingEngine", "bytes", "int", "bytes", "str | None", "Engine", "DialResult")
# Peak memory of a program that has imported the client: 24 MiB with Python 3.11, of which 10 are Python's own.
CLIENT_KIB: Final = 30 * 1024
MISUSED: Final = """
from rlpx.engine.client import connect

with connect() as engine:
    engine.dial(1)
"""

# Packages are downloaded and compiled, and one process waits for another that does it.
pytestmark = pytest.mark.timeout(600)
# For what no other Python could change.
one_python: Final = pytest.mark.parametrize("clone", [OUR_VERSION], indirect=True)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes of this run of the tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "installations"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module", params=VERSIONS)
def clone(request: pytest.FixtureRequest, shared: Path) -> Clone:
    python = find_python(request.param)
    if python is None:
        pytest.skip(f"NOT TESTED ON PYTHON {request.param}: there is none here")
    return Clone.make(shared / f"clone-{request.param}", python, request.param)


@pytest.fixture(scope="module")
def wheel(clone: Clone, shared: Path) -> Environment:
    return Environment.of_wheel(shared / f"wheel-{clone.version}", clone)


def serve_the_readme(installed: Clone | Environment, users_folder: Path) -> None:
    """Its engine serves a peer, and the README's programs run against it beside a user's own modules."""
    chain = load_chain("dev")
    with working_folder() as runtime:
        user = Installation(programs.make_users_folder(users_folder), runtime, installed.python, installed.import_path)
        run_dir = runtime / "rlpx-engine"
        run_dir.mkdir(mode=0o700)
        command = ("env", "-u", "PYTHONPATH", "-C", str(users_folder), str(installed.command))
        with (
            RunningEngine(program=command, run_dir=run_dir, workers=1) as engine,
            user.program(programs.READER_OF_EVENTS) as read,
            user.program(programs.TABLE_OF_SESSIONS) as joined,
            user.program(programs.RESPONDER) as responded,
        ):
            status = engine.call("status")
            assert status["compiled"], status
            assert read(r"DirectionCounts\(inbound=0, outbound=0\)")
            assert joined("as it is: 0")
            with Peer(engine.address, engine.node_id, chain).establish() as peer:
                assert joined(r"session\.opened(.*\n)+?session\.established")
                programs.send_transactions(peer, read)
                programs.ask_the_responder(peer, responded)
                eventually(lambda: engine.counts()[2] == 1, "the peer is active")
                with programs.answering(peer):
                    with user.program(programs.ASKER) as asked:
                        assert asked("1 1")
                    engine.call("disconnect-all")


def test_a_clone_behind_a_link_serves_a_peer_and_the_programs_of_the_readme(clone: Clone, tmp_path: Path) -> None:
    serve_the_readme(clone, tmp_path)


def test_the_wheel_serves_a_peer_and_the_programs_of_the_readme(wheel: Environment, tmp_path: Path) -> None:
    serve_the_readme(wheel, tmp_path)


def test_the_wheel_has_its_files_in_one_package_and_marks_it_as_typed(wheel: Environment) -> None:
    site = wheel.site
    ours = {path.name for path in site.iterdir()} - {"dependencies.pth", "__pycache__"}
    assert ours == {"rlpx"} | {path.name for path in site.glob("rlpx_engine-*.dist-info")}
    for package in ("engine", "workers", "protocol"):
        assert (site / "rlpx" / package / "py.typed").exists()
    assert {path.name for path in (site / "rlpx").iterdir()} == {"engine", "workers", "protocol"}
    assert (site / "rlpx" / "engine" / "conf" / "engine.toml").exists()
    # The page is served from the package.
    static = Path("engine") / "watch" / "static"
    assert {file.name for file in (site / "rlpx" / static).iterdir()} == {file.name for file in (ROOT / static).iterdir()}


def test_every_installed_command_enters_a_program(wheel: Environment, tmp_path: Path) -> None:
    for name in ("rlpx-engine", "rlpx-ctl", "rlpx-tail", "rlpx-swarm", "rlpx-watch", "rlpx-cluster"):
        assert run(wheel.folder / "bin" / name, "--version", folder=tmp_path).startswith(f"{name} ")


def test_importing_the_client_costs_little_memory(wheel: Environment, tmp_path: Path) -> None:
    program = "import rlpx.engine.client; print(open('/proc/self/status').read())"
    peak = re.search(r"VmHWM:\s+(\d+) kB", run(wheel.python, "-c", program, folder=tmp_path))
    assert peak is not None
    assert int(peak[1]) < CLIENT_KIB


@one_python
def test_an_editable_installation_follows_its_clone(clone: Clone, tmp_path: Path) -> None:
    edited = copy_clone(tmp_path / "edited")
    editable = Environment(tmp_path / "environment", clone.version)
    editable.install(clone, "--editable", edited)
    (edited / "engine" / "added.py").write_text("MINE = 1\n")
    program = "from rlpx.engine.added import MINE; from rlpx.protocol.native import NATIVE; print(MINE, NATIVE is not None)"
    assert run(editable.python, "-c", program, folder=tmp_path) == "1 True\n"
    assert run(editable.command, "--version", folder=tmp_path).startswith("rlpx-engine ")


@pytest.fixture
def checked(tmp_path: Path) -> Path:
    """A folder with a user's program that is right, and one that is wrong."""
    folder = programs.make_users_folder(tmp_path)
    (folder / "right.py").write_text(TYPED)
    (folder / "wrong.py").write_text(MISUSED)
    return folder


@one_python
def test_mypy_sees_our_types(wheel: Environment, checked: Path) -> None:
    command = (sys.executable, "-m", "mypy", "--strict", "--python-executable", str(wheel.python))
    shown = run(*command, "right.py", folder=checked)
    assert re.findall(r'Revealed type is "(?:[\w.]+\.)?(\w+(?: \| None)?)"', shown) == list(TYPES), shown
    assert "Success" in shown
    wrong = run(*command, "wrong.py", folder=checked, code=1)
    assert 'Argument 1 to "dial" of "BlockingCommands"' in wrong


@cache
def pyright() -> tuple[str, ...]:
    """Pyright, installed by its lock file."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"NOT TESTED WITH PYRIGHT: {tool} is not installed")
    module = PYRIGHT / "node_modules" / "pyright" / "index.js"
    if not module.exists():
        run("npm", "ci", "--no-audit", "--no-fund", folder=PYRIGHT)
    return ("node", str(module))


@one_python
def test_pyright_sees_our_types(wheel: Environment, checked: Path) -> None:
    command = (*pyright(), "--pythonpath", str(wheel.python))
    (checked / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    shown = run(*command, "right.py", folder=checked)
    assert re.findall(r'Type of ".+" is "(\w+(?: \| None)?)"', shown) == list(TYPES), shown
    assert "0 errors, 0 warnings" in shown
    wrong = run(*command, "wrong.py", folder=checked, code=1)
    assert 'to parameter "enode" of type' in wrong
