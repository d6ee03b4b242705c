"""The command line of `rlpx-swarm`: the target and chain of the flags, and mistakes that are refused before the start."""

from __future__ import annotations

import os
import resource
from argparse import Namespace
from pathlib import Path
from typing import Any, cast

import pytest

from rlpx.engine.settings.chain import load_chain
from rlpx.engine.swarm.command import begin, main, parser
from rlpx.engine.swarm.run import Run
from rlpx.engine.swarm.watch import Watch
from rlpx.protocol.bus.swarm import Address, Begin, Scenario
from rlpx.protocol.mistakes import ConfigError
from tests.pair import key

SCENARIO = Scenario("test", peers=20)
ENODE = f"enode://{key(3).id.hex()}@127.0.0.1:30303"
OTHER = f"enode://{key(4).id.hex()}@[::1]:30304"


class FakeWatch:
    """An engine on the dev chain, or on another one."""

    enode = OTHER

    def __init__(self, **changes: Any) -> None:
        chain = load_chain("dev")
        own = {"name": "dev", "network_id": chain.network_id, "genesis": "0x" + chain.genesis.hex()}
        self.status = {"chain": own | changes}


def given(*flags: str) -> Namespace:
    return parser().parse_args(flags)


def begun(*flags: str, watch: FakeWatch | None = None) -> Begin:
    return begin(given(*flags), SCENARIO, cast("Watch | None", watch))


def test_a_target_is_dialled() -> None:
    found = begun("--target", ENODE, "--seed", "7")
    assert (found.target, found.address, found.seed) == (key(3).id, Address("127.0.0.1", 30303), 7)
    assert found.scenario is SCENARIO


def test_without_a_target_it_is_the_engine_of_the_run_directory() -> None:
    found = begun("--run-dir", "here", watch=FakeWatch())
    assert (found.target, found.address) == (key(4).id, Address("::1", 30304))
    assert begun("--run-dir", "here", "--target", ENODE, watch=FakeWatch()).target == key(3).id


def test_who_listens_has_no_target() -> None:
    found = begun("--listen", "[::1]:4000", "--run-dir", "here", watch=FakeWatch())
    assert (found.target, found.address) == (b"", Address("::1", 4000))


def test_the_last_peer_may_listen_on_the_last_port() -> None:
    assert begun("--listen", "127.0.0.1:65516").address.port == 65516
    assert begun("--listen", "127.0.0.1:0").address.port == 0
    with pytest.raises(ConfigError, match="20 ports from 65517 on go beyond 65535") as error:
        begun("--listen", "127.0.0.1:65517")
    assert error.value.exit_code == os.EX_USAGE


def test_the_chain_is_that_of_the_flag_else_of_the_engine_else_mainnet() -> None:
    assert begun("--target", ENODE).chain.name == "mainnet"
    assert begun("--run-dir", "here", watch=FakeWatch()).chain.name == "dev"
    assert begun("--run-dir", "here", "--chain", "sepolia", watch=FakeWatch()).chain.name == "sepolia"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "mine"}, "the engine's is 'mine': name its file"),
        ({"genesis": "0x" + "11" * 32}, "the engine's 'dev' differs from ours: name its file"),
        ({"network_id": 3}, "the engine's 'dev' differs from ours: name its file"),
    ],
)
def test_an_engine_on_a_chain_that_is_not_known_here(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        begun("--run-dir", "here", watch=FakeWatch(**changes))
    assert str(error.value) == f"--chain: {words}"
    assert error.value.exit_code == os.EX_CONFIG


def carried_out(monkeypatch: pytest.MonkeyPatch, outcome: tuple[int, str | None] | BaseException) -> None:
    """A run with this end."""

    def end(_: Run) -> tuple[int, str | None]:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(Run, "carry_out", end)


def ended(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
    """The exit code of the command, and its one line."""
    with pytest.raises(SystemExit) as end:
        main(flags)
    told = capsys.readouterr()
    assert not told.out
    assert told.err.count("\n") == 1
    assert isinstance(end.value.code, int)
    return end.value.code, told.err.removeprefix("rlpx-swarm: ").rstrip("\n")


@pytest.mark.parametrize("seed", ["-1", str(2**63)])
def test_a_seed_that_does_not_travel(capsys: pytest.CaptureFixture[str], seed: str) -> None:
    code, words = ended(capsys, "--target", ENODE, "--seed", seed)
    assert (code, words) == (
        os.EX_USAGE,
        f"--seed: expected a whole number from 0 to {2**63 - 1}, for example 1; got {seed}",
    )


def test_a_picture_in_no_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "swarm.svg"
    assert ended(capsys, "--target", ENODE, "--plot", str(file)) == (77, f"--plot: {file} cannot be written")


def test_a_picture_that_is_new_or_drawn_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    carried_out(monkeypatch, (0, None))
    main(["--target", ENODE, "--plot", str(tmp_path / "swarm.svg")])
    (tmp_path / "swarm.svg").write_text("before")
    main(["--target", ENODE, "--plot", str(tmp_path / "swarm.svg")])
    assert (tmp_path / "swarm.svg").read_text() == "before"


def limited(monkeypatch: pytest.MonkeyPatch, hard: int) -> None:
    """Allow this many descriptors."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (hard, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)


def test_too_few_descriptors(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 100)
    few = "--peers: a process needs {} descriptors and 100 are allowed: take {}"
    both, only = "more --processes or a higher ulimit -n", "a higher ulimit -n"
    assert ended(capsys, "--target", ENODE, "--peers", "100")[1] == few.format(50 + 64, both)
    # A swarm that listens needs two descriptors for each peer.
    assert ended(capsys, "--listen", "127.0.0.1:0", "--peers", "40")[1] == few.format(40 + 64, both)
    limited(monkeypatch, 64)
    code, words = ended(capsys, "--target", ENODE, "--peers", "2")
    assert (code, words) == (os.EX_CONFIG, few.format(65, only).replace("100", "64"))


def test_a_run_that_went_well_ends_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    carried_out(monkeypatch, (0, None))
    main(["--target", ENODE])
    assert capsys.readouterr() == ("", "")


def test_what_went_wrong_is_the_last_word(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    carried_out(monkeypatch, (70, "1 of 2 processes of the swarm were lost"))
    assert ended(capsys, "--target", ENODE) == (70, "1 of 2 processes of the swarm were lost")
