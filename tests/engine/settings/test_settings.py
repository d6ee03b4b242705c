"""Each setting has a description, bounds that its default keeps, and a reader."""

from __future__ import annotations

import ast
from pathlib import Path

from rlpx.engine.settings.fields import as_toml, setting_fields
from rlpx.engine.settings.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
# They define and check the settings; reading one there is not using it.
DEFINING = {"settings.py", "fields.py", "load.py", "meaning.py"}


def attributes_read() -> set[tuple[str, str]]:
    """The settings that the product reads, as last name of the holder and attribute: `limits` and `max_active_inbound`."""
    read: set[tuple[str, str]] = set()
    for folder in ("engine", "workers", "protocol"):
        for file in (ROOT / folder).rglob("*.py"):
            if file.name in DEFINING:
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Attribute):
                    holder = ast.unparse(node.value).rpartition(".")[2].strip("_")
                    read.add((holder, node.attr))
    return read


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


def test_the_promised_defaults_are_kept() -> None:
    limits, throttle = Settings().limits, Settings().throttle
    assert (limits.max_pending_inbound, limits.max_pending_outbound) == (200, 100)
    assert (limits.max_active_inbound, limits.max_active_outbound) == (2000, 500)
    assert (throttle.per_ip_live, throttle.per_subnet_live, throttle.per_ip_interval_s) == (8, 32, 30)
