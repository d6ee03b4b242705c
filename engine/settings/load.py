"""Makes `Settings` of flags, environment and file, each value with its origin. Every mistake raises `ConfigError`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from rlpx.engine.settings.fields import VARIABLE_PREFIX, SettingField, as_toml, setting_fields
from rlpx.engine.settings.files import exists, read_toml
from rlpx.engine.settings.meaning import check_meaning
from rlpx.engine.settings.settings import Settings
from rlpx.protocol.bus.places import home_folder
from rlpx.protocol.mistakes import ConfigError, file_error
from rlpx.protocol.wording import Expected, WrongValueError, convert, expected_of, nearest, wrong


class Loaded(msgspec.Struct, frozen=True):
    """The settings in force, and for each key the origin of its value."""

    settings: Settings
    origins: dict[str, str]


def load(flags: Mapping[str, str], environment: Mapping[str, str], file: Path) -> Loaded:
    """Merge the sources: a flag beats the environment, which beats the file, which beats the default.

    `flags` are by key. Raises `ConfigError`.
    """
    merged: dict[str, Any] = {}
    origins = {item.key: "default" for item in setting_fields()}
    variables = {item.variable for item in setting_fields()}
    for name in environment:
        if name.startswith(VARIABLE_PREFIX) and name not in variables:
            raise ConfigError(f"{name}: no such setting{nearest(name, variables)}")
    from_file = read_toml(file)
    _check_tables(from_file, file)
    for item in setting_fields():
        table = from_file.get(item.section, {}) if item.section else from_file
        sources: Iterable[tuple[str, Any]] = (
            (item.flag, flags.get(item.key)),
            (item.variable, environment.get(item.variable)),
            (str(file), table.get(item.name)),
        )
        origin, value = next(((origin, value) for origin, value in sources if value is not None), ("", None))
        if not origin:
            continue
        if origin != str(file):
            value = _from_text(item, origin, str(value))
        origins[item.key] = origin
        (merged.setdefault(item.section, {}) if item.section else merged)[item.name] = value
    settings = msgspec.convert(merged, Settings, strict=False)
    check_meaning(settings, origins)
    return Loaded(settings, origins)


def _check_tables(values: object, file: Path) -> None:
    """Check that a file has nothing but settings. Raises `ConfigError`, which names the right table of a misplaced one."""
    try:
        convert(values, Settings)
    except WrongValueError as error:
        name = error.place.rpartition(".")[2]
        elsewhere = [item.key for item in setting_fields() if item.name == name]
        reason = (
            f"no such setting; did you mean {' or '.join(elsewhere)}?" if elsewhere and error.is_unknown else error.reason
        )
        raise ConfigError(f"{file}: {error.place}: {reason}") from error


def default_file(environment: Mapping[str, str]) -> Path:
    """Return `conf/engine.toml` of a clone, else the user's own file, which is written with the defaults if missing."""
    root = Path(__file__).resolve().parents[2]
    if (root / "pyproject.toml").exists():
        file = root / "conf" / "engine.toml"
    else:
        file = home_folder(environment, "XDG_CONFIG_HOME", ".config") / "engine.toml"
    if not exists(file):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(as_toml(), encoding="utf-8")
        except OSError as error:
            raise file_error(f"{file}: cannot be written", error) from error
    return file


def _from_text(item: SettingField, origin: str, text: str) -> Any:  # noqa: ANN401 - a value of the setting's type
    """Parse the text of a flag or variable. Raises `ConfigError`, which names it."""
    value = [part.strip() for part in text.split(",") if part.strip()] if item.is_list else text
    try:
        text.encode()
        return convert(value, item.kind, strict=False)
    except UnicodeEncodeError as error:
        raise ConfigError(f"{origin}: {wrong(text, Expected('text in UTF-8'))}") from error
    except WrongValueError as error:
        # If an item of a list is wrong, the message shows that item. The default is the best example.
        reason = error.reason if error.place else wrong(text, expected_of(item.kind, item.default))
        raise ConfigError(f"{origin}: {reason}") from error
