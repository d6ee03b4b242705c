"""A missing library is one line that says what to install."""

from __future__ import annotations

import pytest

from rlpx.engine.process import extras
from rlpx.protocol.mistakes import ConfigError


def test_nothing_is_missing_here() -> None:
    extras.require("watch")


def test_a_missing_library_is_named_with_the_extra_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras.LIBRARIES, "watch", ("no_such_library",))
    with pytest.raises(ConfigError, match=r"no_such_library is not installed: pip install 'rlpx-engine\[watch\]'") as raised:
        extras.require("watch")
    assert raised.value.exit_code == 69
