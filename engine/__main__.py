"""`rlpx-engine`: read the settings, take the run directory and the port, run until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
import uvloop
import zmq

from engine import VERSION, config, logs
from engine.config import ConfigError, Loaded, RunDir
from engine.engine import Engine, listen
from engine.identity import Identity
from engine.listener import ListeningSocket
from engine.settings import setting_fields
from engine.terminal import Arguments
from protocol.native import NATIVE, WHY_NOT_NATIVE

log = structlog.get_logger()

_EPILOG: Final = (
    "Every setting is a flag and an environment variable RLPX_ENGINE_…; a flag beats the environment beats the file. "
    "Lists are separated by commas. SIGTERM and SIGINT say goodbye to every peer, a second one is quick; SIGHUP reads the "
    "configuration again. Exit codes are those of sysexits."
)


def parser() -> argparse.ArgumentParser:
    """All flags, made from the settings."""
    arguments = Arguments(
        prog="rlpx-engine", description="An Ethereum devp2p session engine.", epilog=_EPILOG, allow_abbrev=False
    )
    arguments.add_argument("--conf", metavar="FILE", help="configuration file (default: conf/engine.toml)")
    arguments.add_argument(
        "--check", action="store_true", help="read everything, print the settings in force, start nothing"
    )
    arguments.add_argument("--version", action="version", version=f"rlpx-engine {VERSION}")
    for item in setting_fields():
        default = ",".join(map(str, item.default)) if item.is_list else str(item.default)
        words = f"{item.description} (default: {default or 'none'})".replace("%", "%%")
        arguments.add_argument(item.flag, dest=item.key, metavar="VALUE", help=words)
    return arguments


async def run(loaded: Loaded, identity: Identity, reload: argparse.Namespace) -> int:
    """From bound port to the last goodbye; the exit code."""
    settings = loaded.settings
    run_dir = RunDir(config.run_dir_path(settings.run_dir, os.environ))
    run_dir.take()
    try:
        try:
            listening = listen(settings.listen)
        except OSError as error:
            code = config.EXIT_PERMISSION if isinstance(error, PermissionError) else config.EXIT_UNAVAILABLE
            raise ConfigError(f"listen: {settings.listen}: {error.strerror}", code) from error
        engine = Engine(settings, identity, run_dir)
        loop = asyncio.get_running_loop()
        second = asyncio.Event()

        def on_signal() -> None:
            if second.is_set():
                return
            if stopping.done():
                second.set()
                log.warning("second signal: ending without goodbyes")
                engine.kill()
            else:
                stopping.set_result(None)
                log.info("ending: goodbyes first")
                engine.stop()

        loop.set_exception_handler(engine.on_fault)
        stopping: asyncio.Future[None] = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        loop.add_signal_handler(signal.SIGHUP, lambda: _reload(engine, reload))
        warn_where_not_compiled()
        await _start(engine, listening)
        if not stopping.done():
            sys.stdout.write(f"ready {engine.enode} workers={settings.workers} run-dir={run_dir.path.absolute()}\n")
            sys.stdout.flush()
        await engine.wait()
        await engine.close()
    finally:
        run_dir.leave()
    return config.EXIT_SOFTWARE if engine.has_failed else 0


def warn_where_not_compiled() -> None:
    """Say that the Python twins of `protocol/c` run, and why."""
    if NATIVE is None:
        log.warning("frames are opened by Python, which takes several times as long", cause=WHY_NOT_NATIVE)


def _prepare_process() -> None:
    """As many descriptors as are allowed, for this process and its workers; and no core file, which would hold the key."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


async def _start(engine: Engine, listening: ListeningSocket | None) -> None:
    """Start, or clean up and say in one line why not."""
    try:
        await engine.start(listening)
    except zmq.ZMQError as error:
        await engine.close()
        raise ConfigError(f"control.endpoint or events.endpoint: {error.strerror}", config.EXIT_UNAVAILABLE) from error
    except (OSError, RuntimeError) as error:
        await engine.close()
        words = str(error) or "they took too long"
        raise ConfigError(f"the workers did not start: {words}", config.EXIT_SOFTWARE) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    flags = parser().parse_args(arguments)
    try:
        loaded = _load(flags)
        logs.configure(loaded.settings.log)
        chain = config.load_chain(loaded.settings.chain, loaded.origins["chain"])
        if flags.check:
            config.check_key(loaded.settings.node_key, os.environ)
            _print_settings(loaded)
            return
        _prepare_process()
        key = config.load_key(loaded.settings.node_key, os.environ)
        sys.exit(uvloop.run(run(loaded, Identity(key, chain, VERSION), flags)))
    except ConfigError as error:
        sys.stderr.write(f"rlpx-engine: {error}\n")
        sys.exit(error.exit_code)


def _load(flags: argparse.Namespace) -> Loaded:
    file = Path(flags.conf) if flags.conf else config.default_file(os.environ)
    given = {item.key: getattr(flags, item.key) for item in setting_fields() if getattr(flags, item.key) is not None}
    return config.load(given, os.environ, file)


def _reload(engine: Engine, flags: argparse.Namespace) -> None:
    try:
        loaded = _load(flags)
    except ConfigError as error:
        log.error("the configuration was not read again", error=str(error))
        return
    logs.configure(loaded.settings.log)
    log.info("the configuration was read again", needs_restart=engine.reload(loaded.settings))


def _print_settings(loaded: Loaded) -> None:
    settings = loaded.settings
    for item in setting_fields():
        holder = getattr(settings, item.section) if item.section else settings
        value = getattr(holder, item.name)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        sys.stdout.write(f"{item.key} = {shown}    # {loaded.origins[item.key]}\n")


if __name__ == "__main__":
    main()
