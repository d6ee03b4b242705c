"""Keys of users that connect over TCP. `rlpx-ctl keys` makes and removes them as files in a folder; the engine reads them.

server.secret   the engine's own secret key, mode 0600, made if it is missing
NAME.key        the public key of a user, and its rights: `events`, `control` or both
(anywhere)      the file for the user's program: its two keys and the engine's public key, mode 0600
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias, TypeVar, get_args

import msgspec
import structlog

from rlpx.engine.settings.files import convert_toml
from rlpx.protocol.bus.control import KeyUser
from rlpx.protocol.bus.curve import KEY_BYTES, ServerKeys
from rlpx.protocol.bus.endpoint import Endpoint
from rlpx.protocol.bus.places import home_folder, user_path
from rlpx.protocol.errors import printable
from rlpx.protocol.mistakes import ConfigError, file_error

Right: TypeAlias = Literal["events", "control"]
RIGHTS: Final[tuple[Right, ...]] = get_args(Right)
SERVER_FILE: Final = "server.secret"
# The name of a user is a file name and appears in logs.
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
# The most files to read; a folder with more is hardly a folder of keys.
MAX_KEY_FILES: Final = 1000

Hex: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", title="64 hex digits")]

T = TypeVar("T", bound=msgspec.Struct)

log = structlog.get_logger()


class SecretFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The engine's own key."""

    secret: Hex


class UserFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user that may connect."""

    public: Hex
    rights: list[Right]


def keys_folder(setting: str, environment: Mapping[str, str]) -> Path:
    """Return the folder that the setting names, else `keys` in the state directory. Raises `ConfigError`."""
    return user_path(setting) if setting else home_folder(environment, "XDG_STATE_HOME", ".local/state") / "keys"


def server_keys(folder: Path) -> ServerKeys:
    """Return the engine's own key pair, which is made if missing. Raises `ConfigError`."""
    file = folder / SERVER_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not file.exists():
            _write(file, f'secret = "{secrets.token_bytes(KEY_BYTES).hex()}"\n')
    except FileExistsError:
        pass  # another program has just made it
    except OSError as error:
        raise file_error(str(file), error) from error
    _check_private(file)
    return ServerKeys.from_secret(bytes.fromhex(_read_secret(file, SecretFile).secret))


def make_key(folder: Path, name: str, rights: list[Right], out: Path) -> None:
    """Add a user. `out` is the file for its program, which must not exist yet. Raises `ConfigError`."""
    server = server_keys(folder)
    pair = ServerKeys.from_secret(secrets.token_bytes(KEY_BYTES))
    place = folder / f"{name}.key"
    shown = ", ".join(f'"{right}"' for right in rights)
    for file, text in (
        (out, f'secret = "{pair.secret.hex()}"\npublic = "{pair.public.hex()}"\nserver = "{server.public.hex()}"\n'),
        (place, f'public = "{pair.public.hex()}"\nrights = [{shown}]\n'),
    ):
        try:
            _write(file, text)
        except FileExistsError as error:
            if file is place:
                out.unlink(missing_ok=True)
            raise ConfigError(f"{file}: exists already; remove it first, or choose another name", os.EX_CANTCREAT) from error
        except OSError as error:
            if file is place:
                out.unlink(missing_ok=True)
            raise file_error(str(file), error) from error


def remove_key(folder: Path, name: str) -> None:
    """Remove a user. Raises `ConfigError`."""
    file = folder / f"{name}.key"
    try:
        file.unlink()
    except OSError as error:
        raise file_error(str(file), error) from error


def listed_keys(folder: Path) -> dict[str, UserFile | str]:
    """Return, by name, each user, or the reason why its key file is not accepted."""
    found: dict[str, UserFile | str] = {}
    for file in sorted(folder.glob("*.key"))[:MAX_KEY_FILES]:
        try:
            _check_name(file)
            _check_ours(folder, "the folder")
            _check_ours(file, "the file")
            found[file.stem] = convert_toml(file, UserFile)
        except ConfigError as error:
            found[file.stem] = str(error)
    return found


class UserKeys:
    """The engine's view of the folder. It reads the folder again whenever a user connects."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.server = server_keys(folder)
        self._state: tuple[tuple[str, int, int], ...] | None = None
        self._users: dict[bytes, tuple[str, list[Right]]] = {}

    @property
    def users(self) -> tuple[KeyUser, ...]:
        """All users."""
        self._look()
        return tuple(KeyUser(name, public, tuple(rights)) for public, (name, rights) in self._users.items())

    def who(self, public: bytes, right: Right) -> str | None:
        """Return the name of the user with this key, if the user has this right."""
        self._look()
        name, rights = self._users.get(public, ("", []))
        return name if right in rights else None

    def has(self, name: str, right: Right) -> bool:
        """Whether a user of this name still has the right."""
        self._look()
        return any(user == name and right in rights for user, rights in self._users.values())

    def authorise(self, right: Right) -> Callable[[bytes], str | None]:
        """Return a function for an endpoint that returns, for a public key, the name of the user if it has this right."""
        return lambda public: self.who(public, right)

    def end_revoked(self, endpoint: Endpoint, right: Right) -> None:
        """Close the connections of users that no longer have this right."""
        for link in list(endpoint.links.values()):
            if link.user is not None and not self.has(link.user, right):
                link.close("its key was removed, or no longer has this right")

    def _look(self) -> None:
        state = self._folder_state()
        if state == self._state:
            return
        self._state = state
        self._users = {}
        for name, user in listed_keys(self._folder).items():
            if isinstance(user, str):
                log.warning("a key file is not accepted", cause=user)
            else:
                self._users[bytes.fromhex(user.public)] = name, user.rights

    def _folder_state(self) -> tuple[tuple[str, int, int], ...]:
        """Return names, times and modes of the files, which differ if a file was added, removed or changed."""
        try:
            with os.scandir(self._folder) as entries:
                found = [entry for entry in entries if entry.name.endswith(".key")][:MAX_KEY_FILES]
                states = [(entry.name, entry.stat().st_mtime_ns, entry.stat().st_mode) for entry in found]
            return (("", 0, self._folder.stat().st_mode), *sorted(states))
        except OSError:
            return ()


def _write(file: Path, text: str) -> None:
    """Write a new file with mode 0600. Raises `OSError`; `FileExistsError` if the file exists."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
    except OSError:
        # A partial file would prevent another attempt.
        file.unlink()
        raise


def _read_secret(file: Path, kind: type[T]) -> T:
    """Read a file that holds a secret key. Raises `ConfigError`, which never shows the content."""
    try:
        return convert_toml(file, kind)
    except ConfigError as error:
        if error.exit_code != os.EX_CONFIG:
            raise
    fields = " and ".join(item.name for item in msgspec.structs.fields(kind))
    raise ConfigError(f"{file}: expected TOML with {fields}, each 64 hex digits in lower case")


def _check_name(file: Path) -> None:
    """Check that the file name can be the name of a user. Raises `ConfigError`."""
    if not NAME.fullmatch(file.stem):
        raise ConfigError(f"{printable(str(file))}: its name is not letters, digits, dots, hyphens and underscores")


def _check_private(file: Path) -> None:
    """Check that no other user can read the file. Raises `ConfigError`."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such file") from error
    except OSError as error:
        raise file_error(str(file), error) from error
    if mode & 0o077:
        raise ConfigError(f"{file}: others can read this secret key (mode {mode:04o}); chmod 600 it", os.EX_NOPERM)


def _check_ours(path: Path, what: str) -> None:
    """Check that no other user can write to it and so add a key. Raises `ConfigError`."""
    try:
        found = path.stat()
    except OSError as error:
        raise file_error(str(path), error) from error
    if found.st_uid not in {0, os.geteuid()} or stat.S_IMODE(found.st_mode) & 0o022:
        raise ConfigError(f"{path}: others can write {what}; chmod go-w it, and own it", os.EX_NOPERM)
