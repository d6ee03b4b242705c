"""The completions of each shell, from the shells themselves if they are installed."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from rlpx.engine import __main__ as engine_command
from rlpx.engine.cli import ctl, tail
from rlpx.engine.cli.completion import program_of
from rlpx.engine.cli.completion_scripts import SHELLS, script
from rlpx.engine.swarm import command as swarm
from rlpx.engine.watch import command as watch
from rlpx.protocol.errors import DisconnectReason

PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "rlpx-engine": engine_command.parser,
    "rlpx-ctl": ctl.parser,
    "rlpx-tail": tail.parser,
    "rlpx-swarm": swarm.parser,
    "rlpx-watch": watch.parser,
}


@cache
def completion(program: str, shell: str) -> str:
    """The script of a program for a shell; it is kept, as making one takes longer than using it."""
    return script(program_of(PARSERS[program]()), shell)


def ask_bash(code: str, line: str, folder: Path) -> set[str]:
    """Call the function that bash itself calls, with the words that bash makes of the line."""
    words = line.split(" ")
    # By default, = is a word of its own.
    parts = [part for word in words for part in ((word.partition("=")) if "=" in word else (word,)) if part or word == ""]
    asked = f"COMP_WORDS=({' '.join(map(shlex.quote, parts))}); COMP_CWORD={len(parts) - 1}\ncompopt() {{ :; }}\n"
    program = words[0]
    call = f'_{program.replace("-", "_")}; printf "%s\\n" "${{COMPREPLY[@]}}"; complete -p {program} >/dev/null || exit 9'
    return run(["bash", "--norc", "-c", f"{code}\n{asked}{call}"], folder)


def ask_zsh(code: str, line: str, folder: Path) -> set[str]:
    """Call the function that zsh itself calls, with its builtins replaced by functions that print what they are offered."""
    words = line.split(" ")
    told = (
        "compadd() { for one in $@; do [[ $one != -- && $one == ${current}* ]] && print -r -- $one; done }\n"
        "compset() { current=${current#*=} }\n"
        "_describe() { for one in ${(P)@[-1]}; do [[ ${one%%:*} == ${current}* ]] && print -r -- ${one%%:*}; done }\n"
        "_files() { if [[ $1 == -/ ]]; then print -l ${current}*(N/); else print -l ${current}*(N); fi }\n"
        "compdef() { : }\n"
    )
    asked = f"words=({' '.join(shlex.quote(word) for word in words)}); CURRENT={len(words)}\n"
    return run(["zsh", "-f", "-c", f"{told}{code}\n{asked}_{words[0].replace('-', '_')}"], folder)


def ask_fish(code: str, line: str, folder: Path) -> set[str]:
    """Ask fish for the completions that it would show."""
    lines = run(["fish", "--no-config", "-c", f"{code}\ncomplete -C {shlex.quote(line)}"], folder)
    # The description follows a tab; for --option=value, fish prints the whole word.
    return {one.partition("\t")[0].rpartition("=")[2] for one in lines}


def run(command: list[str], folder: Path) -> set[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8", "TERM": "dumb"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    assert (ran.returncode in (0, 1), ran.stderr) == (True, ""), ran
    return {line for line in ran.stdout.splitlines() if line}


ASK: dict[str, Callable[[str, str, Path], set[str]]] = {"bash": ask_bash, "zsh": ask_zsh, "fish": ask_fish}


@pytest.fixture(params=SHELLS)
def offered(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], set[str]]:
    """The completions that the shell offers at the end of a line."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    (tmp_path / "own.toml").touch()
    (tmp_path / "folder").mkdir()

    def ask(line: str) -> set[str]:
        program = line.partition(" ")[0]
        return ASK[request.param](completion(program, request.param), line, tmp_path)

    return ask


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rlpx-ctl stat", {"status"}),
        ("rlpx-ctl disconnect-", {"disconnect-all"}),
        ("rlpx-ctl disconnect 42 --re", {"--reason"}),
        ("rlpx-ctl disconnect 42 --reason too", {"too_many_peers"}),
        ("rlpx-ctl disconnect 42 --reason=too", {"too_many_peers"}),
        ("rlpx-ctl disconnect-all --reason already", {"already_connected"}),
        ("rlpx-ctl --json disconnect --reason us", {"useless_peer"}),
        ("rlpx-ctl --run-dir status disconn", {"disconnect", "disconnect-all"}),
        ("rlpx-ctl send 42 s", {"snap"}),
        ("rlpx-ctl send 42 eth GetBlockH", {"GetBlockHeaders"}),
        ("rlpx-ctl send --run-dir x 42 eth GetBlockH", {"GetBlockHeaders"}),
        ("rlpx-ctl broadcast ", {"eth", "snap"}),
        ("rlpx-ctl sessions --direction ", {"inbound", "outbound"}),
        ("rlpx-ctl sessions --phase a", {"active"}),
        ("rlpx-ctl sessions --shared eth/7", {"eth/70", "eth/71", "eth/72"}),
        ("rlpx-ctl log-level w", {"warning"}),
        ("rlpx-ctl --run-dir f", {"folder"}),
        ("rlpx-ctl --completion z", {"zsh"}),
        ("rlpx-tail session.e", {"session.established"}),
        ("rlpx-tail session.opened snap.GetAccount", {"snap.GetAccountRange"}),
        ("rlpx-engine --chain sep", {"sepolia"}),
        ("rlpx-engine --chain o", {"own.toml"}),
        ("rlpx-engine --conf o", {"own.toml"}),
        ("rlpx-engine --log.form", {"--log.format"}),
        ("rlpx-engine --log.format j", {"json"}),
        ("rlpx-engine --log.level=d", {"debug"}),
        ("rlpx-engine --conduct.ends-on-breach f", {"false"}),
        ("rlpx-engine --limits.max-active-i", {"--limits.max-active-inbound"}),
        ("rlpx-swarm --scenario chu", {"churn"}),
        ("rlpx-swarm --scenario o", {"own.toml"}),
    ],
)
def test_a_beginning_is_completed(offered: Callable[[str], set[str]], line: str, expected: set[str]) -> None:
    # A folder may have its slash.
    assert {word.rstrip("/") for word in offered(line)} == expected


@pytest.mark.parametrize("line", ["rlpx-ctl session ", "rlpx-ctl send ", "rlpx-ctl dial --wait ", "rlpx-ctl status "])
def test_where_nothing_is_known_nothing_is_offered(offered: Callable[[str], set[str]], line: str) -> None:
    assert offered(line) == set()


def test_all_commands_and_all_options_are_offered(offered: Callable[[str], set[str]]) -> None:
    for name, make in PARSERS.items():
        program = program_of(make())
        # fish offers short options apart.
        long = {name for option in program.own.options for name in option.names if name.startswith("--")}
        assert long <= offered(f"{name} --")
        commands = {command.name for command in program.commands}
        if commands:
            assert offered(f"{name} ") == commands


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("program", PARSERS)
def test_the_option_prints_it_and_ends(program: str, shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        PARSERS[program]().parse_args(["--completion", shell])
    assert caught.value.code == 0
    assert capsys.readouterr().out == completion(program, shell)


def test_another_shell_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        ctl.parser().parse_args(["--completion", "tcsh"])
    assert caught.value.code == 64
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "bash" in line


def test_words_of_a_type_are_found_through_what_is_around_it() -> None:
    sessions = next(command for command in program_of(ctl.parser()).commands if command.name == "sessions")
    values = {name: option.values for option in sessions.options for name in option.names}
    assert values["--direction"] is not None
    assert values["--direction"].words == ("inbound", "outbound")
    assert values["--worker"] is not None
    assert values["--worker"].words == ()
    assert values["--json"] is None


def test_only_reasons_that_the_specification_has_are_offered() -> None:
    DisconnectReason(0x77)  # As a peer may have sent it.
    assert "unknown" not in script(program_of(ctl.parser()), "bash")
