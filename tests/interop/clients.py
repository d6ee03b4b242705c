"""Other clients' own code as peers: built or installed once, loudly skipped where their toolchain is missing."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import ROOT, JsonProgram

FOLDER = Path(__file__).resolve().parent
BUILT = ROOT / ".build"


def _require(tool: str, client: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"NOT TESTED AGAINST {client}: {tool} is not installed")


@cache
def go_program(module: Path, name: str, package: str = ".") -> str:
    """Build a program of a Go module of ours; Go's own cache makes this quick the second time."""
    _require("go", "go-ethereum")
    BUILT.mkdir(exist_ok=True)
    output = BUILT / name
    subprocess.run(["go", "build", "-o", str(output), package], cwd=module, check=True, timeout=900)
    return str(output)


def geth_program(name: str) -> str:
    """`geth` or `gethnode` (eth/69 to 72), or `geth68` (eth/68)."""
    return go_program(FOLDER / name, name)


@cache
def ethereumjs_program() -> list[str]:
    """Install `@ethereumjs/devp2p` by its lock file."""
    _require("node", "@ethereumjs/devp2p")
    _require("npm", "@ethereumjs/devp2p")
    folder = FOLDER / "ethereumjs"
    if not (folder / "node_modules" / "@ethereumjs" / "devp2p").exists():
        subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=600, stdout=subprocess.DEVNULL
        )
    return ["node", str(folder / "peer.mjs")]


def geth(*flags: str, program: str = "geth") -> JsonProgram:
    """A go-ethereum peer, or many (`-count`)."""
    return JsonProgram([geth_program(program), *flags])


def geth_node(*arguments: str) -> JsonProgram:
    """A go-ethereum node with a generated chain, one server for each argument that says what it offers."""
    return JsonProgram([geth_program("gethnode"), *arguments])


def ethereumjs(*flags: str) -> JsonProgram:
    """An ethereumjs peer."""
    return JsonProgram([*ethereumjs_program(), *flags])


@cache
def geth_chain(program: str = "geth") -> dict[str, Any]:
    """What the Go program says of its chain: geth computed its genesis hash and fork ids."""
    with geth(program=program) as peer:
        return peer.wait("chain")


def write_chain_file(chain: dict[str, Any], file: Path) -> Path:
    """A chain file of the user's own for the chain of the Go program."""
    file.write_text(
        f'name = "interop"\n'
        f"network_id = {chain['network_id']}\n"
        f'genesis_hash = "0x{chain["genesis"]}"\n'
        f"genesis_time = {chain['genesis_time']}\n"
        f"fork_blocks = {chain['fork_blocks']}\n"
        f"fork_times = {chain['fork_times']}\n"
    )
    return file
