"""The fields of all settings. `conf/engine.toml`, flags, variables and `--help` are made from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, get_type_hints

import msgspec
from msgspec import Meta

from rlpx.engine.settings.settings import Settings
from rlpx.protocol.settings import Section

VARIABLE_PREFIX: Final = "RLPX_ENGINE_"


class SettingField(msgspec.Struct, frozen=True):
    """One setting: its section (empty if none), name, description, default, and type with bounds.

    If `is_live`, SIGHUP can change it while the engine runs.
    """

    section: str
    name: str
    description: str
    default: Any
    kind: Any
    is_list: bool
    is_live: bool

    @property
    def key(self) -> str:
        """The name in error messages and files, `limits.max_active_inbound`."""
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def flag(self) -> str:
        """`--limits.max-active-inbound`."""
        return "--" + self.key.replace("_", "-")

    @property
    def variable(self) -> str:
        """`RLPX_ENGINE_LIMITS_MAX_ACTIVE_INBOUND`."""
        return VARIABLE_PREFIX + self.key.replace(".", "_").upper()


def setting_fields() -> Iterator[SettingField]:
    """Yield all settings; those without a section come first."""
    yield from _fields_of("", Settings, Settings())
    for name, section in _sections():
        yield from _fields_of(name, type(section), section)


def live_sections() -> tuple[str, ...]:
    """Return the sections that SIGHUP reads again while the engine runs; all else needs a restart."""
    return tuple(name for name, section in _sections() if section.is_live)


def as_toml() -> str:
    """Return the text of the default configuration file."""
    lines = ["# Every setting with its default. A flag beats an environment variable beats this file.", ""]
    lines += _toml_lines(_fields_of("", Settings, Settings()))
    for name, section in _sections():
        live = " SIGHUP reads this section again." if section.is_live else ""
        lines += ["", f"# {section.__doc__}{live}", f"[{name}]", *_toml_lines(_fields_of(name, type(section), section))]
    return "\n".join(lines) + "\n"


_DEFAULTS: Final = Settings()
# A TOML string writes a code point up to this with four hex digits, and a higher one with eight.
_MAX_SHORT_ESCAPE: Final = 0xFFFF


def _sections() -> Iterator[tuple[str, Section]]:
    for item in msgspec.structs.fields(Settings):
        value = getattr(_DEFAULTS, item.name)
        if isinstance(value, Section):
            yield item.name, value


def _fields_of(section: str, struct: type[Section], defaults: Section) -> Iterator[SettingField]:
    hints = get_type_hints(struct, include_extras=True)
    for item in msgspec.structs.fields(struct):
        value = getattr(defaults, item.name)
        if not isinstance(value, Section):
            # Nested annotations are merged. The last Meta with a description is the setting's own.
            metas = [meta for meta in getattr(hints[item.name], "__metadata__", ()) if isinstance(meta, Meta)]
            description = next((meta.description for meta in reversed(metas) if meta.description), "")
            yield SettingField(
                section, item.name, description, value, hints[item.name], isinstance(value, tuple), struct.is_live
            )


def _toml_lines(fields: Iterator[SettingField]) -> Iterator[str]:
    for item in fields:
        yield f"# {item.description}"
        yield f"{item.name} = {toml_value(item.default)}"


def toml_value(value: object) -> str:
    """Return a value in TOML syntax, in ASCII."""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{"".join(map(_toml_character, value))}"' if isinstance(value, str) else str(value)


def _toml_character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if " " <= character <= "~":
        return character
    return f"\\u{ord(character):04x}" if ord(character) <= _MAX_SHORT_ESCAPE else f"\\U{ord(character):08x}"


def value_of(settings: Settings, item: SettingField) -> Any:  # noqa: ANN401 - of the setting's type
    """Return the value of one setting."""
    return getattr(getattr(settings, item.section) if item.section else settings, item.name)
