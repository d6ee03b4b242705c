"""A chain is found by its name or its path; a wrong file is named with its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlpx.engine.settings.chain import load_chain
from tests.engine.settings.mistakes import complaint

HASH = "0x" + "ab" * 32


@pytest.mark.parametrize(("name", "network_id"), [("mainnet", 1), ("sepolia", 11155111), ("hoodi", 560048)])
def test_a_known_chain_is_found_by_its_name(name: str, network_id: int) -> None:
    chain = load_chain(name)
    assert (chain.name, chain.network_id) == (name, network_id)


def test_a_chain_of_the_users_own_is_found_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(f'name = "own"\nnetwork_id = 7\ngenesis_hash = "0x{"ab" * 32}"\n')
    chain = load_chain(str(file))
    assert (chain.network_id, chain.genesis) == (7, b"\xab" * 32)


def test_a_missing_chain_says_where_it_was_looked_for_and_which_there_are() -> None:
    error = complaint(lambda: load_chain("sepolio"))
    words = "--chain: expected one of dev, hoodi, mainnet, sepolia, or a TOML file, for example mainnet; got 'sepolio': "
    assert str(error).startswith(words)
    assert str(error).endswith("conf/sepolio.toml: no such file; did you mean sepolia?")
    assert error.exit_code == 78
    in_file = complaint(lambda: load_chain("nochain", "/etc/engine.toml"))
    assert str(in_file).startswith("/etc/engine.toml: chain: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "name: is missing: text"),
        (f'name = "x"\nnetwork_id = -1\ngenesis_hash = "{HASH}"', "network_id: expected a whole number, 0 or more"),
        (f'name = "x"\nnetwork_id = "1"\ngenesis_hash = "{HASH}"', "network_id: expected a whole number, 0 or more"),
        (
            'name = "x"\nnetwork_id = 1\ngenesis_hash = "0xab"',
            "genesis_hash: expected a block hash of 64 hex digits, for example 0xd4e5...8fa3; got '0xab'",
        ),
        ('name = "x"\nnetwork_id = 1', "genesis_hash: is missing: a block hash of 64 hex digits, for example 0xd4e5"),
        (
            f'name = "x"\nnetwork_id = 1\ngenesis_hash = "{HASH}"\nfork_time = []',
            "fork_time: no such setting; did you mean fork_times?",
        ),
        (
            f'name = "x"\nnetwork_id = 1\ngenesis_hash = "{HASH}"\nfork_times = [1, "x"]',
            "fork_times[1]: expected a whole number, 0 or more, for example 1; got 'x'",
        ),
    ],
)
def test_a_wrong_chain_file_is_named_with_its_key(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text)
    assert str(complaint(lambda: load_chain(str(file)))).startswith(f"{file}: {words}")
