"""Settings that cannot fit into the limit of file descriptors are refused with the numbers."""

from __future__ import annotations

import os

import msgspec
import pytest

from rlpx.engine.settings.descriptor_needs import check_descriptors, needs
from rlpx.engine.settings.settings import ControlSettings, LimitSettings, Settings
from rlpx.protocol.mistakes import ConfigError


def test_the_defaults_fit_into_the_usual_hard_limit_and_just_into_what_they_need() -> None:
    settings = Settings()
    check_descriptors(settings, 4096)
    needed = needs(settings)
    check_descriptors(settings, max(needed.engine, needed.worker))


def test_sessions_are_shared_by_the_workers() -> None:
    one, four = needs(Settings(workers=1)), needs(Settings(workers=4))
    limits = LimitSettings()
    assert one.worker - four.worker >= limits.max_active_inbound // 2
    assert four.engine > one.engine


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(limits=LimitSettings(max_active_inbound=100_000)), "limits: each of 2 workers may need 5"),
        (Settings(control=ControlSettings(max_connections=90_000)), "control.max_connections: the engine may need 90"),
    ],
)
def test_what_cannot_fit_is_refused_with_the_numbers_and_what_to_do(settings: Settings, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        check_descriptors(settings, 20_000)
    assert caught.value.exit_code == os.EX_CONFIG
    assert "20000 are allowed" in str(caught.value)
    assert "LimitNOFILE" in str(caught.value)
    check_descriptors(msgspec.structs.replace(settings), 200_000)
