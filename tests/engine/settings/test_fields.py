"""The list of settings gives each one name everywhere, and the text of `conf/engine.toml`."""

from __future__ import annotations

import tomllib
from itertools import pairwise
from pathlib import Path

import msgspec

from rlpx.engine.settings.fields import as_toml, live_sections, setting_fields
from rlpx.engine.settings.settings import Settings

ROOT = Path(__file__).resolve().parents[3]


def test_the_file_in_conf_is_the_text_of_the_defaults() -> None:
    assert (ROOT / "conf" / "engine.toml").read_text() == as_toml()


def test_the_default_text_reads_back_as_the_defaults() -> None:
    assert msgspec.convert(tomllib.loads(as_toml()), Settings) == Settings()


def test_no_two_settings_have_one_name() -> None:
    fields = list(setting_fields())
    for names in ([item.key for item in fields], [item.flag for item in fields], [item.variable for item in fields]):
        assert len(names) == len(set(names))


def test_a_setting_has_the_same_name_as_flag_and_variable() -> None:
    found = {item.key: item for item in setting_fields()}
    item = found["limits.max_active_inbound"]
    assert item.flag == "--limits.max-active-inbound"
    assert item.variable == "RLPX_ENGINE_LIMITS_MAX_ACTIVE_INBOUND"
    assert found["listen"].flag == "--listen"
    assert found["listen"].variable == "RLPX_ENGINE_LISTEN"


def test_every_list_is_known_as_one() -> None:
    lists = {item.key for item in setting_fields() if item.is_list}
    assert lists == {item.key for item in setting_fields() if isinstance(item.default, tuple)}
    assert {"protocols.eth", "throttle.exempt_cidrs", "access.deny_cidrs"} <= lists


def test_sections_that_change_while_running_are_marked_where_they_are_declared() -> None:
    assert live_sections() == ("limits", "throttle", "access", "log")
    assert {item.section for item in setting_fields() if item.is_live} == set(live_sections())


def test_the_file_says_which_sections_change_while_running() -> None:
    lines = as_toml().splitlines()
    marked = [after for line, after in pairwise(lines) if line.endswith(" SIGHUP reads this section again.")]
    assert tuple(line.strip("[]") for line in marked) == live_sections()


def test_readme_says_which_sections_change_while_running() -> None:
    *names, last = live_sections()
    assert f"{', '.join(names).capitalize()} and {last} change while the engine runs" in (ROOT / "README.md").read_text()
