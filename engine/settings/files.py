"""Files that users name: their existence and their contents."""

from __future__ import annotations

import codecs
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from rlpx.protocol.mistakes import ConfigError, file_error
from rlpx.protocol.wording import WrongValueError, convert

T = TypeVar("T")


def exists(file: Path) -> bool:
    """Whether a file exists. Raises `ConfigError` if that cannot be determined, for example in another user's folder."""
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise file_error(str(file), error) from error
    return True


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file, which is UTF-8 regardless of the locale. Raises `ConfigError`."""
    try:
        # Some editors begin a file with a byte order mark.
        return tomllib.loads(file.read_bytes().removeprefix(codecs.BOM_UTF8).decode())
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such file") from error
    except OSError as error:
        raise file_error(str(file), error) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not TOML: byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise ConfigError(f"{file}: not TOML: it is nested too deeply") from error
    except ValueError as error:  # a number with more digits than Python accepts raises no TOMLDecodeError
        raise ConfigError(f"{file}: not TOML: {error}") from error


def convert_toml(file: Path, struct: type[T]) -> T:
    """Read a TOML file as this struct. Raises `ConfigError`, which names the file and the key."""
    try:
        converted: T = convert(read_toml(file), struct)
    except WrongValueError as error:
        raise ConfigError(f"{file}: {error}") from error
    return converted
