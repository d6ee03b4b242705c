"""The parts that tests of settings share: a file to read, and the one line of its error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rlpx.protocol.mistakes import ConfigError


def written(folder: Path, text: str) -> Path:
    """A configuration file."""
    file = folder / "engine.toml"
    file.write_text(text)
    return file


def complaint(call: Callable[[], object]) -> ConfigError:
    """The error of the call, which is one line."""
    with pytest.raises(ConfigError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return caught.value
