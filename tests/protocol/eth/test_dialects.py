"""Which languages there are, by the name of their capability."""

from __future__ import annotations

from typing import Any, cast

import pytest

from rlpx.protocol.eth.dialects import DIALECTS


def test_each_language_is_found_by_its_own_name() -> None:
    assert {name: dialect.name for name, dialect in DIALECTS.items()} == {"eth": "eth", "snap": "snap"}


def test_nobody_adds_one() -> None:
    with pytest.raises(TypeError):
        cast("dict[str, Any]", DIALECTS)["les"] = DIALECTS["eth"]
