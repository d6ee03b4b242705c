from __future__ import annotations

import pytest

from rlpx.engine.overview.clients import NAME_CHARACTERS, client_name


@pytest.mark.parametrize(
    ("text", "family", "version"),
    [
        ("Geth/v1.16.2-stable-abcdef01/linux-amd64/go1.24.5", "Geth", "v1.16.2"),
        ("Geth/my-node/v1.16.2-stable/linux-amd64/go1.24.5", "Geth", "v1.16.2"),
        ("reth/v1.6.0-d8451e5/x86_64-unknown-linux-gnu", "reth", "v1.6.0"),
        ("Nethermind/v1.32.2+4c4ea2a5/linux-x64/dotnet9.0.7", "Nethermind", "v1.32.2"),
        ("erigon/v3.0.12/linux-amd64/go1.24.1", "erigon", "v3.0.12"),
        ("besu/v25.7.0/linux-x86_64/openjdk-java-21", "besu", "v25.7.0"),
        ("no convention at all", "no convention at all", ""),
        ("/v1.0", "-", "v1.0"),
        ("", "-", ""),
        (None, "-", ""),
    ],
)
def test_a_name_has_a_family_and_a_version(text: str | None, family: str, version: str) -> None:
    name = client_name(text)
    assert (name.family, name.version) == (family, version)


def test_a_hostile_name_is_cut_and_printable() -> None:
    name = client_name("\x1b[2J\u202e" + "A" * 5000 + "/v1." + "9" * 5000)
    assert name.text.isprintable()
    assert len(name.text) < 2 * NAME_CHARACTERS
    assert len(name.family) <= 24
    assert len(client_name("x/v1." + "9" * 90).version) == 24
