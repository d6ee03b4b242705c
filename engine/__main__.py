"""`rlpx-engine`: read the settings, take the run directory and the port, run until told to stop."""

from __future__ import annotations

if __name__ == "__main__":
    from rlpx.engine.process import start

    start.engine()

import argparse
import asyncio
import ctypes
import gc
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Final

import structlog
import uvloop

from rlpx.engine.cli.completion import add_completion
from rlpx.engine.cli.terminal import Arguments, SettingsFile, add_version, typed
from rlpx.engine.engine import Engine, listen
from rlpx.engine.intake.listener import ListeningSocket
from rlpx.engine.process import logs, stdio
from rlpx.engine.process.log_file import check_log_file
from rlpx.engine.process.signals import Signals
from rlpx.engine.process.systemd import Notifier
from rlpx.engine.process.version import VERSION
from rlpx.engine.settings import node_key
from rlpx.engine.settings.chain import load_chain
from rlpx.engine.settings.descriptor_needs import check_descriptors
from rlpx.engine.settings.fields import setting_fields, toml_value, value_of
from rlpx.engine.settings.files import exists
from rlpx.engine.settings.identity import Identity
from rlpx.engine.settings.load import Loaded, default_file, load
from rlpx.engine.settings.node_key import KeyHold
from rlpx.engine.settings.run_dir import RunDir
from rlpx.protocol.allocator import keep_freed_memory
from rlpx.protocol.bus.places import run_dir_path
from rlpx.protocol.errors import printable
from rlpx.protocol.mistakes import ConfigError, bind_error
from rlpx.protocol.native import NATIVE, WHY_NOT_NATIVE
from rlpx.protocol.rlpx.crypto import PrivateKey
from rlpx.protocol.wording import as_text

# The longest path of a file with settings (PATH_MAX).
_PATH_CHARACTERS: Final = 4096

# prctl(2)'s number: whether other processes of this user may read our memory.
PR_SET_DUMPABLE: Final = 4

log = structlog.get_logger()

_EPILOG: Final = (
    "Every setting is a flag and an environment variable RLPX_ENGINE_NAME; a flag beats the environment beats the file. "
    "Lists are separated by commas. SIGTERM and SIGINT say goodbye to every peer, a second one is quick; SIGHUP reads the "
    "configuration again, SIGUSR1 opens the log file again, SIGUSR2 replaces the workers one by one. Exit codes are those "
    "of sysexits. `rlpx-engine doctor` examines this machine and the settings."
)


def parser() -> Arguments:
    """All flags, made from the settings."""
    arguments = Arguments(prog="rlpx-engine", description="An Ethereum devp2p session engine.", epilog=_EPILOG)
    arguments.add_argument(
        "--check", action="store_true", help="read everything, print the settings in force, start nothing"
    )
    add_version(arguments)
    add_completion(arguments)
    add_settings(arguments)
    return arguments


def add_settings(arguments: Arguments) -> None:
    """Add the flags of all settings, and the file."""
    arguments.add_argument(
        "--conf", metavar="FILE", type=typed(SettingsFile), help="configuration file (default: conf/engine.toml)"
    )
    for item in setting_fields():
        live = "; SIGHUP reads it again" if item.is_live else ""
        text = f"{item.description} (default: {as_text(item.default) or 'none'}{live})".replace("%", "%%")
        arguments.add_argument(item.flag, dest=item.key, metavar="VALUE", help=text)


async def run(loaded: Loaded, identity: Identity, flags: argparse.Namespace, notifier: Notifier) -> int:
    """Run from the bound port to the last goodbye; returns the exit code. `flags` are what a reload starts from."""
    settings = loaded.settings
    run_dir = RunDir(run_dir_path(settings.run_dir, os.environ))
    run_dir.take()
    key_hold = KeyHold(node_key.key_file(settings.node_key, os.environ))
    try:
        listening = _listen(settings.listen)
        engine = Engine(settings, identity, run_dir)
        asyncio.get_running_loop().set_exception_handler(engine.on_fault)
        signals = Signals(
            stop=engine.stop,
            kill=engine.kill,
            reload=lambda: _reload(engine, flags, notifier),
            reopen=logs.reopen,
            restart=engine.restart_workers,
        )
        with signals:
            warn_if_not_compiled()
            if not key_hold.take():
                log.warning("the node key is in use by another engine: peers let in only one of them")
            await _start(engine, listening)
            if not signals.is_stopping:
                _announce(engine, notifier)
            await engine.wait()
            notifier.stopping()
            await engine.close()
    finally:
        key_hold.leave()
        run_dir.leave()
    return os.EX_SOFTWARE if engine.has_failed else 0


def _listen(address: str) -> ListeningSocket | None:
    """The listening socket. Raises `ConfigError`."""
    try:
        return listen(address)
    except OSError as error:
        raise bind_error(f"listen: {address}", error) from error


def _announce(engine: Engine, notifier: Notifier) -> None:
    """Say that the engine serves: to the service manager, on stdout, in the log."""
    notifier.ready(engine, asyncio.get_running_loop())
    sys.stdout.write(_ready_line(engine))
    sys.stdout.flush()
    engine.journal.started(engine.settings, VERSION, engine.node.enode)


def _ready_line(engine: Engine) -> str:
    """`ready ENODE workers=N run-dir=DIR`: `not-listening` if nobody can dial us, a mark if the address is a guess."""
    guess = " external-ip=guessed" if engine.node.is_enode_guessed else ""
    where = f"workers={engine.settings.workers} run-dir={engine.run_dir.path.absolute()}{guess}"
    return f"ready {engine.node.enode or 'not-listening'} {where}\n"


def warn_if_not_compiled() -> None:
    """Warn that the Python twins of `protocol/c` run, and why."""
    if NATIVE is None:
        log.warning("frames are opened by Python, which takes several times as long", cause=WHY_NOT_NATIVE)


def _check_curve(key: PrivateKey) -> None:
    """Compute with the curve once: if that fails, every handshake would fail. Raises `ConfigError`."""
    try:
        key.ecdh(key.point)
    except MemoryError as error:
        raise ConfigError(
            "memory that is writable and executable is forbidden here (MemoryDenyWriteExecute); the curve needs it because "
            f"protocol/c is not compiled: {WHY_NOT_NATIVE}",
            os.EX_UNAVAILABLE,
        ) from error


def _prepare_process() -> int:
    """Raise the limit of file descriptors as far as allowed, for this process and its workers; returns the limit.

    No core file is written, and no other process of the same user may read our memory: both would hold the key.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    # prctl(2), which only Linux has.
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


async def _start(engine: Engine, listening: ListeningSocket | None) -> None:
    """Start the engine, or clean up and raise `ConfigError` with the cause in one line."""
    try:
        await engine.start(listening)
    except ConfigError:
        await engine.close()
        raise
    except TimeoutError as error:
        await engine.close()
        raise ConfigError("the workers did not start: they took too long", os.EX_SOFTWARE) from error
    except (OSError, RuntimeError) as error:
        await engine.close()
        raise ConfigError(f"the workers did not start: {error}", os.EX_SOFTWARE) from error
    # What is there now lives as long as the process. To look through it for garbage would hold up the loop for some 25 ms.
    gc.freeze()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    flags = parser().parse_args(arguments)
    with nullcontext() if flags.check else stdio.outlets(_on_stdout_lost):
        try:
            _carry_out(flags)
        finally:
            logs.finish()


def _on_stdout_lost(cause: str) -> None:
    log.warning("the ready line could not be written to stdout", cause=cause)


def _carry_out(flags: argparse.Namespace) -> None:
    notifier = Notifier(os.environ, os.getpid())
    try:
        loaded = load_settings(flags)
        if flags.check and loaded.settings.log.file:
            check_log_file(loaded.settings.log.file)
        else:
            logs.configure(loaded.settings.log)
        chain = load_chain(loaded.settings.chain, loaded.origins["chain"])
        if flags.check:
            node_key.check_key(loaded.settings.node_key, os.environ)
            RunDir(run_dir_path(loaded.settings.run_dir, os.environ)).check_length()
            _print_settings(loaded)
            return
        check_descriptors(loaded.settings, _prepare_process())
        keep_freed_memory()
        key = node_key.load_key(loaded.settings.node_key, os.environ)
        _check_curve(key)
        sys.exit(uvloop.run(run(loaded, Identity(key, chain, VERSION), flags, notifier)))
    except ConfigError as error:
        notifier.failed(str(error))
        sys.stderr.write(f"rlpx-engine: {error}\n")
        sys.exit(error.exit_code)
    finally:
        notifier.close()


def load_settings(flags: argparse.Namespace) -> Loaded:
    """The settings by flags, environment and file. Raises `ConfigError`."""
    file = Path(flags.conf) if flags.conf else default_file(os.environ)
    given = {item.key: getattr(flags, item.key) for item in setting_fields() if getattr(flags, item.key) is not None}
    return load(given, os.environ, file)


def _load_again(flags: argparse.Namespace) -> Loaded:
    """Load as at the start, but never from a pipe: opening one waits for a writer, and every session would wait too."""
    if flags.conf and exists(Path(flags.conf)) and Path(flags.conf).is_fifo():
        raise ConfigError(f"{flags.conf}: a pipe, which can be read only once")
    return load_settings(flags)


def _reload(engine: Engine, flags: argparse.Namespace, notifier: Notifier) -> None:
    notifier.reloading()
    try:
        loaded = _load_again(flags)
        logs.configure(loaded.settings.log)
        needs_restart = engine.reload(loaded.settings)
    except ConfigError as error:
        notifier.reloaded()
        log.error("the configuration was not read again", error=str(error))
        return
    notifier.reloaded()
    log.info("the configuration was read again", needs_restart=needs_restart)


def _print_settings(loaded: Loaded) -> None:
    """Print the values in use as TOML, each with its origin. An empty path is printed as the path that it stands for."""
    meant = {
        "node_key": str(node_key.key_file(loaded.settings.node_key, os.environ).absolute()),
        "run_dir": str(run_dir_path(loaded.settings.run_dir, os.environ).absolute()),
    }
    for item in setting_fields():
        value = meant.get(item.key, value_of(loaded.settings, item))
        sys.stdout.write(f"{item.key} = {toml_value(value)}    # {printable(loaded.origins[item.key], _PATH_CHARACTERS)}\n")
