"""The places where programs find an engine: the run directory, the sockets in it, and endpoints.

The environment is an argument. Nothing is opened; the passwd database is used only to find home directories.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rlpx.protocol.mistakes import ConfigError
from rlpx.protocol.rlpx.host_port import parse_host_port

APPLICATION: Final = "rlpx-engine"
# A worker has the lowest free number when it starts. There are twice as many as workers may serve, because one that leaves
# keeps its number until its sessions have ended.
WORKER_NUMBERS: Final = 256
# The path of a Unix socket has up to 108 bytes with its final NUL. `worker-255.ipc` is the longest name in a run directory.
SOCKET_PATH_MAX_BYTES: Final = 107
LONGEST_SOCKET_NAME: Final = f"worker-{WORKER_NUMBERS - 1}.ipc"
# The sockets of all workers, as a pattern.
WORKER_SOCKETS: Final = "worker-*.ipc"
# The contents of a run directory besides the lock.
OWN_SOCKETS: Final = ("control.ipc", "events.ipc", WORKER_SOCKETS)


def run_dir_path(setting: str, environment: Mapping[str, str]) -> Path:
    """Return the setting, else `$XDG_RUNTIME_DIR/rlpx-engine`, else `~/.local/state/rlpx-engine`. Raises `ConfigError`."""
    if setting:
        return user_path(setting)
    runtime = environment.get("XDG_RUNTIME_DIR")
    return Path(runtime) / APPLICATION if runtime else home_folder(environment, "", ".local/state")


def socket_path(run_dir: Path, name: str) -> Path:
    """Return the path of the socket with this name (`control`, `events`, `worker-0`) in a run directory."""
    return run_dir.absolute() / f"{name}.ipc"


def socket_endpoint(run_dir: Path, name: str) -> str:
    """Return the ZeroMQ endpoint of a socket in a run directory."""
    return f"ipc://{socket_path(run_dir, name)}"


def check_endpoint(text: str) -> None:
    """Check that an engine can have this ZeroMQ endpoint: tcp with a port, or a Unix socket. Raises `ValueError`."""
    scheme, _, place = text.partition("://")
    if scheme == "ipc" and place:
        return
    if scheme != "tcp":
        raise ValueError("it begins with neither tcp:// nor ipc://")
    host, port = parse_host_port(place)
    if not host or not port:
        raise ValueError("a host and a port are needed")


def user_path(path: str) -> Path:
    """Return a path given by a user, with `~` expanded. Raises `ConfigError` if no file can have this name."""
    try:
        expanded = Path(path).expanduser()
        if b"\0" in os.fsencode(expanded):
            raise ConfigError(f"{path}: a path has no NUL character")
    except RuntimeError as error:
        raise ConfigError(f"{path}: the home of {Path(path).parts[0]} is not known; write the whole path") from error
    except UnicodeEncodeError as error:
        raise ConfigError(f"{path}: this locale cannot name it; set LC_ALL=C.UTF-8") from error
    return expanded


def home_folder(environment: Mapping[str, str], variable: str, fallback: str) -> Path:
    """Return our folder in the one that the variable names, else in `fallback` in the home. Raises `ConfigError`."""
    base = environment.get(variable)
    if base:
        return Path(base) / APPLICATION
    home = environment.get("HOME") or os.environ.get("HOME")
    if not home:
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError as error:
            raise ConfigError(
                f"uid {os.getuid()} has no passwd entry and HOME is not set: set HOME, or --run-dir and --node-key"
            ) from error
    return Path(home) / fallback / APPLICATION
