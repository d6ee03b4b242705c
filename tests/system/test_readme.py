"""The examples of README.md run as they stand: its Python against a real engine, its command lines through their parsers."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from rlpx.engine import __main__ as engine_command
from rlpx.engine.cli import ctl, tail
from rlpx.engine.cli.terminal import Arguments
from rlpx.engine.settings.chain import load_chain
from rlpx.engine.swarm import command as swarm
from rlpx.engine.watch import command as watch
from tests.pair import key
from tests.system import readme_programs as programs
from tests.system.cluster_fleet import Nats, fleet
from tests.system.harness import ROOT, RunningEngine, eventually
from tests.system.peers import Peer
from tests.system.readme_programs import Installation

PAGES: Final = ("README.md", "engine/swarm/README.md")
COMMANDS: Final = [
    command
    for page in PAGES
    for command in re.findall(r"^(bin/rlpx-\S+.*?)(?:\s+#.*)?$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
]
PARSERS: Final[dict[str, Callable[[], Arguments]]] = {
    "bin/rlpx-engine": engine_command.parser,
    "bin/rlpx-ctl": ctl.parser,
    "bin/rlpx-tail": tail.parser,
    "bin/rlpx-swarm": swarm.parser,
    "bin/rlpx-watch": watch.parser,
}
CHAIN = load_chain("dev")


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Installation]:
    """This clone. The runtime directory's path is short, for the 107 bytes of a Unix socket's."""
    with tempfile.TemporaryDirectory(prefix="rlpx-") as folder:
        yield Installation(programs.make_users_folder(tmp_path), Path(folder))


# A text by which each piece of Python in README.md is found, and the test that runs it.
SNIPPETS: Final = {
    programs.READER_OF_EVENTS: "test_the_reader_of_events_runs",
    programs.TABLE_OF_SESSIONS: "test_the_table_of_sessions_runs",
    programs.ASKER: "test_the_asker_runs",
    programs.RESPONDER: "test_the_responder_runs",
    programs.LIVES_OF_A_FLEET: "test_the_programs_of_a_fleet_run",
    programs.FILTER_OF_A_FLEET: "test_the_programs_of_a_fleet_run",
    programs.ASKER_OF_A_FLEET: "test_the_programs_of_a_fleet_run",
}


@contextmanager
def usual_engine(installation: Installation) -> Iterator[RunningEngine]:
    """An engine in the usual run directory of this runtime directory."""
    run_dir = installation.runtime / "rlpx-engine"
    run_dir.mkdir(mode=0o700)
    with RunningEngine(run_dir=run_dir, workers=1) as engine:
        yield engine


def test_every_python_of_the_readme_has_its_test() -> None:
    assert [[name for mark, name in SNIPPETS.items() if mark in code] for code in programs.PYTHON] == [
        [name] for name in SNIPPETS.values()
    ]
    assert all(callable(globals()[name]) for name in SNIPPETS.values())


def test_the_reader_of_events_runs(clone: Installation) -> None:
    with usual_engine(clone) as engine, clone.program(programs.READER_OF_EVENTS) as line:
        assert line(r"DirectionCounts\(inbound=0, outbound=0\)")
        with Peer(engine.address, engine.node_id, CHAIN).establish() as peer:
            programs.send_transactions(peer, line)


def test_the_table_of_sessions_runs(clone: Installation) -> None:
    with usual_engine(clone) as engine, clone.program(programs.TABLE_OF_SESSIONS) as line:
        assert line("as it is: 0")
        with Peer(engine.address, engine.node_id, CHAIN).establish():
            assert line(r"session\.opened 1\n(.*\n)+?session\.established 1")


def test_the_asker_runs(clone: Installation) -> None:
    with usual_engine(clone) as engine, Peer(engine.address, engine.node_id, CHAIN).establish() as peer:
        eventually(lambda: engine.counts()[2] == 1, "the peer is active")
        with programs.answering(peer):
            with clone.program(programs.ASKER) as line:
                assert line("1 1")
            engine.call("disconnect-all")


def test_the_responder_runs(clone: Installation) -> None:
    with (
        usual_engine(clone) as engine,
        clone.program(programs.RESPONDER) as line,
        Peer(engine.address, engine.node_id, CHAIN).establish() as peer,
    ):
        programs.ask_the_responder(peer, line)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_line_is_one_that_its_program_takes(command: str) -> None:
    enode = f"enode://{key(3).id.hex()}@203.0.113.7:30303"
    program_name, *arguments = shlex.split(re.sub(r"enode://…@[0-9.:]+", enode, command))
    PARSERS[program_name]().parse_args(arguments)


def test_the_programs_of_a_fleet_run(clone: Installation) -> None:
    with Nats() as nats, fleet(nats, "a", "b") as [_, engine]:
        at = f'"{nats.url}", cluster="test"'

        def visit() -> None:
            with Peer(engine.address, engine.node_id, CHAIN).establish() as visitor:
                visitor.leave()

        with clone.program(programs.LIVES_OF_A_FLEET, at) as lives, programs.visiting(visit):
            assert lives(r"b session.established [0-9a-f]{128}")
            assert lives(r"b session.closed [0-9a-f]{128}")
        with Peer(engine.address, engine.node_id, CHAIN).establish() as peer, programs.answering(peer):
            name = peer.node_id.hex()
            with clone.program(programs.ASKER_OF_A_FLEET, at) as asked:
                assert asked(rf"b {name} .*Header\(")
            with clone.program(programs.FILTER_OF_A_FLEET, at) as filtered:
                eventually(lambda: (engine.call("status")["workers"][0]["feeds"] or {}).get("open"), "the feed is open")
                programs.announce_a_blob(peer)
                # The other announcement does not pass.
                assert filtered(r"\A.*\n") == f"b {name}\n"
            peer.leave()
