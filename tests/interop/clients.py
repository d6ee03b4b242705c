"""Other clients' own code as peers: built or installed once, loudly skipped if their toolchain is missing."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import ROOT, JsonProgram

FOLDER = Path(__file__).resolve().parent
BUILT = ROOT / ".build"


@contextmanager
def _building() -> Iterator[None]:
    """Test processes that run at once build one after the other."""
    BUILT.mkdir(exist_ok=True)
    with (BUILT / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _require(tool: str, client: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"NOT TESTED AGAINST {client}: {tool} is not installed")


@cache
def go_program(module: Path, name: str, package: str = ".") -> str:
    """Build a program of a Go module of ours; Go's own cache makes this quick the second time."""
    _require("go", "go-ethereum")
    output = BUILT / name
    with _building():
        # A program that another test process runs cannot be written to, but it can be replaced.
        made = BUILT / f"{name}.made"
        subprocess.run(["go", "build", "-o", str(made), package], cwd=module, check=True, timeout=900)
        made.replace(output)
    return str(output)


def geth_program(name: str) -> str:
    """`geth` or `gethnode` (eth/69 to 72), or `geth68` (eth/68)."""
    return go_program(FOLDER / name, name)


@cache
def node_program(name: str, package: str, script: str) -> list[str]:
    """Install a package by the lock file of a folder of ours; returns the command of a script that uses it."""
    _require("node", package)
    _require("npm", package)
    folder = FOLDER / name
    with _building():
        if not (folder / "node_modules" / package).exists():
            # A package's own scripts would build or fetch what it has shipped already.
            command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            subprocess.run(command, cwd=folder, check=True, timeout=600, stdout=subprocess.DEVNULL)
    return ["node", str(folder / script)]


def ethereumjs_program() -> list[str]:
    """Install `@ethereumjs/devp2p` by its lock file."""
    return node_program("ethereumjs", "@ethereumjs/devp2p", "peer.mjs")


def user_program(language: str, name: str) -> list[str]:
    """The example `feed`, `responder` or `command` in `go` or `js`, as users would write it."""
    if language == "go":
        return [go_program(FOLDER / "go-programs", f"go-{name}", f"./{name}")]
    return node_program("js-programs", "zeromq", f"{name}.mjs")


def geth(*flags: str, program: str = "geth") -> JsonProgram:
    """A go-ethereum peer, or many (`-count`)."""
    return JsonProgram([geth_program(program), *flags])


def geth_node(*arguments: str) -> JsonProgram:
    """A go-ethereum node with a generated chain, and one server for each argument, which says what it offers."""
    return JsonProgram([geth_program("gethnode"), *arguments])


def ethereumjs(*flags: str) -> JsonProgram:
    """An ethereumjs peer."""
    return JsonProgram([*ethereumjs_program(), *flags])


@cache
def geth_chain(program: str = "geth") -> dict[str, Any]:
    """The Go program's description of its chain: geth computed its genesis hash and fork ids."""
    with geth(program=program) as peer:
        return peer.wait("chain")


def write_chain_file(chain: dict[str, Any], file: Path) -> Path:
    """Write a chain file, as a user would, for the chain of the Go program."""
    file.write_text(
        f'name = "interop"\n'
        f"network_id = {chain['network_id']}\n"
        f'genesis_hash = "0x{chain["genesis"]}"\n'
        f"genesis_time = {chain['genesis_time']}\n"
        f"fork_blocks = {chain['fork_blocks']}\n"
        f"fork_times = {chain['fork_times']}\n"
    )
    return file
