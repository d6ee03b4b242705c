"""Each setting has words, bounds that its default keeps, one name everywhere, and a reader."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import msgspec

from engine.settings import Settings, as_toml, setting_fields

ROOT = Path(__file__).resolve().parents[2]
# They define and check the settings; reading one there is not using it.
DEFINING = {"settings.py", "config.py"}


def attributes_read() -> set[tuple[str, str]]:
    """What the product reads, as the last word of the holder and the attribute: `limits` and `max_active_inbound`."""
    read: set[tuple[str, str]] = set()
    for folder in ("engine", "workers"):
        for file in (ROOT / folder).glob("*.py"):
            if file.name in DEFINING:
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Attribute):
                    holder = ast.unparse(node.value).rpartition(".")[2].strip("_")
                    read.add((holder, node.attr))
    return read


def test_the_file_in_conf_is_the_text_of_the_defaults() -> None:
    assert (ROOT / "conf" / "engine.toml").read_text() == as_toml()


def test_the_default_text_reads_back_as_the_defaults() -> None:
    assert msgspec.convert(tomllib.loads(as_toml()), Settings) == Settings()


def test_every_setting_is_read_by_something() -> None:
    read = attributes_read()
    unread = [
        item.key
        for item in setting_fields()
        if (item.section, item.name) not in read and ("settings", item.name) not in read
    ]
    assert unread == []


def test_every_setting_has_a_line_of_reason() -> None:
    assert [item.key for item in setting_fields() if not item.description or "\n" in item.description] == []


def test_every_section_says_what_it_is_about() -> None:
    lines = as_toml().splitlines()
    for index, line in enumerate(lines):
        if line.startswith("["):
            assert len(lines[index - 1].removeprefix("# ").split()) > 2


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


def test_the_promised_defaults_are_kept() -> None:
    limits, throttle = Settings().limits, Settings().throttle
    assert (limits.max_pending_inbound, limits.max_pending_outbound) == (200, 100)
    assert (limits.max_active_inbound, limits.max_active_outbound) == (2000, 500)
    assert (throttle.per_ip_live, throttle.per_subnet_live, throttle.per_ip_interval_s) == (8, 32, 30)


def test_every_list_is_known_as_one() -> None:
    lists = {item.key for item in setting_fields() if item.is_list}
    assert lists == {item.key for item in setting_fields() if isinstance(item.default, tuple)}
    assert {"protocols.eth", "throttle.exempt_cidrs", "access.deny_cidrs"} <= lists
