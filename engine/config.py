"""From flags, environment and file to `Settings`, each value with its origin; node key, chain file, run directory.

Every mistake is a `ConfigError`: one line that names file and key, and an exit code of sysexits.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import secrets
import stat
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from engine.dialer import parse_enode
from engine.protocols import Protocols, parse_sub_protocol
from engine.settings import SettingField, Settings, as_toml, setting_fields
from protocol.crypto import PrivateKey
from protocol.errors import UsageError
from protocol.forkid import Chain

T = TypeVar("T")

EXIT_ERROR_ANSWER: Final = 1
EXIT_USAGE: Final = 64
EXIT_UNAVAILABLE: Final = 69
EXIT_SOFTWARE: Final = 70
EXIT_PERMISSION: Final = 77
EXIT_CONFIG: Final = 78

# A Unix socket's path takes 108 bytes with its end; the longest name in the run directory is `worker-127.ipc`.
SOCKET_PATH_MAX_BYTES: Final = 107
LONGEST_SOCKET_NAME: Final = "worker-127.ipc"
APPLICATION: Final = "rlpx-engine"
# What stands in a run directory beside the lock.
OWN_SOCKETS: Final = ("control.ipc", "events.ipc", "traffic.ipc", "worker-*.ipc")
# 64 digits, a prefix and an end of line.
KEY_FILE_MAX_BYTES: Final = 128
_VARIABLE_PREFIX: Final = "RLPX_ENGINE_"


class ConfigError(Exception):
    """One line for the user, and the exit code that goes with it."""

    def __init__(self, message: str, exit_code: int = EXIT_CONFIG) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code


class Loaded(msgspec.Struct, frozen=True):
    """The settings in force, and per key where its value came from."""

    settings: Settings
    origins: dict[str, str]


# -- settings ---------------------------------------------------------------------------------------------------------------


def load(flags: Mapping[str, str], environment: Mapping[str, str], file: Path) -> Loaded:
    """Flag beats environment beats file beats default. `flags` by key. Raises `ConfigError`."""
    merged: dict[str, Any] = {}
    origins = {item.key: "default" for item in setting_fields()}
    variables = {item.variable for item in setting_fields()}
    for name in environment:
        if name.startswith(_VARIABLE_PREFIX) and name not in variables:
            raise ConfigError(f"{name}: no such setting")
    from_file = _read_toml(file)
    _check(from_file, Settings, str(file), is_text=False)
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
            value = _from_text(item, str(value))
            _check(_nested(item, value), Settings, origin, is_text=True)
        origins[item.key] = origin
        (merged.setdefault(item.section, {}) if item.section else merged)[item.name] = value
    settings = msgspec.convert(merged, Settings, strict=False)
    _check_meaning(settings, origins)
    return Loaded(settings, origins)


def default_file(environment: Mapping[str, str]) -> Path:
    """`conf/engine.toml` of a clone, else the user's own; written with the defaults where it is missing."""
    root = Path(__file__).resolve().parent.parent
    if (root / "pyproject.toml").exists():
        file = root / "conf" / "engine.toml"
    else:
        file = _home(environment, "XDG_CONFIG_HOME", ".config") / "engine.toml"
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(as_toml())
        except OSError as error:
            raise ConfigError(f"{file}: cannot be written: {error.strerror}", EXIT_PERMISSION) from error
    return file


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}", EXIT_PERMISSION) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error


def _check(values: object, struct: type, origin: str, *, is_text: bool) -> None:
    try:
        msgspec.convert(values, struct, strict=not is_text)
    except msgspec.ValidationError as error:
        words, _, place = str(error).partition(" - at `")
        key = place.rstrip("`").removeprefix("$").lstrip(".")
        for start, said in (("Object contains unknown field", "no such setting"), ("Object missing required", "is missing")):
            if words.startswith(start):
                named = words.split("`")[1]
                key, words = f"{key}.{named}".lstrip("."), said
        name = origin if is_text else f"{origin}: {key}"
        raise ConfigError(f"{name}: {words[:1].lower()}{words[1:].replace('`', '')}") from error


def _from_text(item: SettingField, text: str) -> Any:  # noqa: ANN401 - text, or a list of texts, which msgspec converts
    if item.is_list:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _nested(item: SettingField, value: object) -> dict[str, Any]:
    return {item.section: {item.name: value}} if item.section else {item.name: value}


def _check_meaning(settings: Settings, origins: Mapping[str, str]) -> None:
    """What types cannot say: addresses, networks, endpoints, enodes. Raises `ConfigError`."""
    checks: tuple[tuple[str, Callable[[str], object], Iterable[str]], ...] = (
        ("listen", host_port, [settings.listen]),
        ("throttle.exempt_cidrs", ipaddress.ip_network, settings.throttle.exempt_cidrs),
        ("access.allow_cidrs", ipaddress.ip_network, settings.access.allow_cidrs),
        ("access.deny_cidrs", ipaddress.ip_network, settings.access.deny_cidrs),
        ("protocols.extra", parse_sub_protocol, settings.protocols.extra),
        ("peers.static", parse_enode, settings.peers.static),
        ("peers.trusted", parse_enode, settings.peers.trusted),
        ("control.endpoint", _loopback_endpoint, [settings.control.endpoint]),
        ("events.endpoint", _loopback_endpoint, [settings.events.endpoint]),
    )

    def complain(key: str, error: ValueError) -> ConfigError:
        origin = origins[key]
        named = origin if origin.startswith(("--", "RLPX_")) else f"{origin}: {key}"
        return ConfigError(f"{named}: {error}")

    for key, check, values in checks:
        for value in values:
            if not value and key in _MAY_BE_EMPTY:
                continue
            try:
                check(value)
            except ValueError as error:
                raise complain(key, error) from error
    try:
        Protocols(settings.protocols)
    except ValueError as error:
        raise complain("protocols.extra", error) from error
    if settings.responders.answer_s >= settings.timeouts.ping_s:
        # While a peer waits for answers its pongs are not read.
        raise ConfigError(f"responders.answer_s: {settings.responders.answer_s:g} must be below timeouts.ping_s")


_MAY_BE_EMPTY: Final = frozenset({"listen", "control.endpoint", "events.endpoint"})


def _loopback_endpoint(endpoint: str) -> None:
    if not is_loopback_endpoint(endpoint):
        raise ValueError(f"{endpoint} is not tcp://127.0.0.1:PORT; other addresses need encryption, which is not there yet")


def host_port(text: str) -> tuple[str, int]:
    """`HOST:PORT` with a numeric host, brackets around IPv6. Raises `ValueError`."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdecimal() or int(port) > 0xFFFF:  # noqa: PLR2004 - the highest port
        raise ValueError(f"{text!r} is not HOST:PORT")
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise ValueError(f"{host!r} is not an IP address") from error
    return host, int(port)


def is_loopback_endpoint(endpoint: str) -> bool:
    """Whether a ZeroMQ endpoint is tcp on this machine only."""
    try:
        parts = urlsplit(endpoint)
        is_numbered = parts.scheme == "tcp" and parts.port is not None
        return is_numbered and ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


# -- chain, key, directories ----------------------------------------------------------------------------------------------


def load_chain(name: str, origin: str = "--chain") -> Chain:
    """A chain file by its name in `conf/`, or by its path. Raises `ConfigError`, which names the setting's origin."""
    is_path = "/" in name or name.endswith(".toml")
    file = Path(name) if is_path else conf_folder() / f"{name}.toml"
    if not file.exists():
        named = origin if origin.startswith(("--", "RLPX_")) else f"{origin}: chain"
        raise ConfigError(f"{named}: {file}: no such file")
    return convert_toml(file, Chain)


def conf_folder() -> Path:
    """Where the files of chains and scenarios are: a wheel carries conf/ inside the package, a clone has it beside it."""
    here = Path(__file__).resolve().parent
    return here / "conf" if (here / "conf").is_dir() else here.parent / "conf"


def convert_toml(file: Path, struct: type[T]) -> T:
    """A file as this struct. Raises `ConfigError`."""
    values = _read_toml(file)
    _check(values, struct, str(file), is_text=False)
    return msgspec.convert(values, struct)


def load_key(path: str, environment: Mapping[str, str]) -> PrivateKey:
    """The node key, 64 hex digits in a file that only its owner can read; made where it is missing. Raises `ConfigError`."""
    file = _key_file(path, environment)
    try:
        if not file.exists():
            _make_key(file)
        return _read_key(file)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}", EXIT_PERMISSION) from error


def check_key(path: str, environment: Mapping[str, str]) -> None:
    """Read the node key if there is one, and make none. Raises `ConfigError`."""
    file = _key_file(path, environment)
    if file.exists():
        load_key(path, environment)


def _key_file(path: str, environment: Mapping[str, str]) -> Path:
    return _expanded(path) if path else _home(environment, "XDG_STATE_HOME", ".local/state") / "node.key"


def _make_key(file: Path) -> None:
    """Write it whole, then give it its name: a crash or a second engine leaves no half of a key."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, made = tempfile.mkstemp(prefix=".node-key-", dir=file.parent)
    try:
        with os.fdopen(descriptor, "w") as created:
            created.write(PrivateKey.generate(secrets.token_bytes).secret.hex() + "\n")
            created.flush()
            os.fsync(created.fileno())
        with suppress(FileExistsError):
            os.link(made, file)
    finally:
        Path(made).unlink()


def _read_key(file: Path) -> PrivateKey:
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_CLOEXEC), "rb") as opened:
        mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
        if mode & 0o077:
            raise ConfigError(f"{file}: others can read the node key (mode {mode:04o}); chmod 600 it", EXIT_PERMISSION)
        text = opened.read(KEY_FILE_MAX_BYTES).decode("ascii", "replace").strip().removeprefix("0x")
    try:
        return PrivateKey(bytes.fromhex(text))
    except (ValueError, UsageError) as error:
        raise ConfigError(f"{file}: not a node key: 64 hex digits, not zero and below the group order") from error


def run_dir_path(setting: str, environment: Mapping[str, str]) -> Path:
    """The setting, else `$XDG_RUNTIME_DIR/rlpx-engine`, else `~/.local/state/rlpx-engine`."""
    if setting:
        return _expanded(setting)
    runtime = environment.get("XDG_RUNTIME_DIR")
    return Path(runtime) / APPLICATION if runtime else _home({}, "", ".local/state")


class RunDir:
    """The directory of sockets and lock, held by one engine at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def take(self) -> None:
        """Make it, mode 0700, lock it, and clear what a killed engine left. Raises `ConfigError`."""
        longest = len(os.fsencode(self.path.absolute() / LONGEST_SOCKET_NAME))
        if longest > SOCKET_PATH_MAX_BYTES:
            raise ConfigError(
                f"{self.path}: run_dir is too long for a Unix socket: {longest} bytes with the socket's name, "
                f"{SOCKET_PATH_MAX_BYTES} fit"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            found = self.path.stat()
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise ConfigError(
                    f"{self.path}: run_dir: others can enter it; chmod 700 it, or name another", EXIT_PERMISSION
                )
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._lock = os.open(self.path / "lock", flags, 0o600)
        except OSError as error:
            raise ConfigError(f"{self.path}: run_dir: {error.strerror}", EXIT_PERMISSION) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._lock, 32).decode("ascii", "replace").strip() or "unknown"
            raise ConfigError(
                f"{self.path}: run_dir is held by another engine, process {holder}", EXIT_UNAVAILABLE
            ) from error
        os.truncate(self._lock, 0)
        os.write(self._lock, f"{os.getpid()}\n".encode())
        self._clear()

    def endpoint(self, name: str) -> str:
        """The ZeroMQ endpoint of a socket in it."""
        return f"ipc://{self.path.absolute() / name}.ipc"

    def leave(self) -> None:
        """Remove the sockets and let go of the lock."""
        self._clear()
        if self._lock is not None:
            os.truncate(self._lock, 0)
            os.close(self._lock)
            self._lock = None

    def _clear(self) -> None:
        """Remove our own sockets, and nothing else that a user may keep here."""
        for pattern in OWN_SOCKETS:
            for left in self.path.glob(pattern):
                if left.is_socket():
                    left.unlink(missing_ok=True)


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path}: {error}") from error


def _home(environment: Mapping[str, str], variable: str, fallback: str) -> Path:
    base = environment.get(variable)
    return (Path(base) if base else Path.home() / fallback) / APPLICATION
