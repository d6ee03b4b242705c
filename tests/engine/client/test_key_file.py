"""A program's key: read from a file that only its owner can read, and never shown."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest

from rlpx.engine.client.key_file import ClientKey
from rlpx.protocol.mistakes import ConfigError

SECRET, SERVER = "5a" * 32, "ab" * 32


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "alice.secret"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_a_key_has_a_secret_and_the_engines_public_key(tmp_path: Path) -> None:
    key = ClientKey.load(written(tmp_path, f'secret = "{SECRET}"\nserver = "{SERVER}"\n'))
    assert key == ClientKey(SECRET, SERVER)
    assert (key.pair.secret.hex(), len(key.pair.public)) == (SECRET, 32)


@pytest.mark.parametrize(
    "text",
    ["", f'secret = "{SECRET}"', f'"{SECRET}" = 1', f"secret = {SECRET}", f'secret = "{SECRET}x"\nserver = "{SERVER}"'],
)
def test_a_file_that_is_no_key_is_named_and_not_shown(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        ClientKey.load(str(file))
    assert str(caught.value) == f"{file}: expected TOML with secret and server, each 64 hex digits in small letters"
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"others can read this secret key \(mode 0644\); chmod 600 it") as caught:
        ClientKey.load(written(tmp_path, "", 0o644))
    assert caught.value.exit_code == os.EX_NOPERM


def test_a_key_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        ClientKey.load(tmp_path / "none")
    with pytest.raises(ConfigError, match="Not a directory"):
        ClientKey.load(written(tmp_path, "") / "none")
