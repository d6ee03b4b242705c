"""`rlpx-engine` up to the point where it serves: flags, `--check`, every refusal with its line and exit code, signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import structlog.testing
import zmq

from engine import VERSION
from engine import __main__ as command
from engine.__main__ import main, parser
from engine.config import RunDir
from engine.settings import Settings, as_toml, setting_fields

KEY = "11" * 32


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("RLPX_ENGINE_"):
            monkeypatch.delenv(name)
    yield
    structlog.reset_defaults()


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """Flags under which an engine would start and touch nothing outside of the test."""
    conf = tmp_path / "engine.toml"
    conf.write_text(as_toml())
    key = tmp_path / "node.key"
    key.write_text(KEY)
    key.chmod(0o600)
    run_dir = tmp_path / "run"
    return [
        *("--conf", str(conf), "--node-key", str(key), "--run-dir", str(run_dir)),
        *("--chain", "dev", "--listen", "127.0.0.1:0", "--log.format", "json"),
    ]


def ended(arguments: list[str]) -> object:
    """Its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


# -- flags ------------------------------------------------------------------------------------------------------------------


def test_every_setting_is_a_flag_whose_help_says_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "2000")
    words = parser().format_help()
    for item in setting_fields():
        assert f"{item.flag} VALUE" in words
        default = ",".join(map(str, item.default)) if item.is_list else str(item.default)
        assert f"(default: {default or 'none'})" in words


@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["--workers"], ["more"], ["--work", "2"], ["--limits.max-active", "2"]]
)
def test_wrong_usage_is_one_line_and_exit_code_64(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(arguments) == 64
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("rlpx-engine: ")
    assert len(captured.err.splitlines()) == 1


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(["--version"]) == 0
    assert capsys.readouterr().out == f"rlpx-engine {VERSION}\n"


# -- check ------------------------------------------------------------------------------------------------------------------


def test_check_prints_each_setting_with_its_origin_and_starts_nothing(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLPX_ENGINE_LIMITS_MAX_ACTIVE_INBOUND", "50")
    main([*flags, "--check", "--access.deny-cidrs", "10.0.0.0/8,::1/128"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" = ")[0] for line in lines] == [item.key for item in setting_fields()]
    assert "limits.max_active_inbound = 50    # RLPX_ENGINE_LIMITS_MAX_ACTIVE_INBOUND" in lines
    assert "access.deny_cidrs = 10.0.0.0/8,::1/128    # --access.deny-cidrs" in lines
    assert "chain = dev    # --chain" in lines
    assert f"workers = {Settings().workers}    # {tmp_path / 'engine.toml'}" in lines
    assert not (tmp_path / "run").exists()


def test_check_makes_no_key(tmp_path: Path, flags: list[str]) -> None:
    missing = tmp_path / "none.key"
    main([*flags, "--node-key", str(missing), "--check"])
    assert not missing.exists()


def test_check_never_shows_the_key(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main([*flags, "--check"])
    captured = capsys.readouterr()
    assert KEY not in captured.out + captured.err


# -- refusals ---------------------------------------------------------------------------------------------------------------


def refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Exit code, and the one line on stderr."""
    code = ended(flags)
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert line.startswith("rlpx-engine: ")
    return code, line.removeprefix("rlpx-engine: ")


def test_a_wrong_value_in_the_file_is_named_by_file_and_key(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "engine.toml"
    file.write_text("[limits]\nmax_active_inbound = 'many'\n")
    assert refused(flags, capsys) == (78, f"{file}: limits.max_active_inbound: expected int, got str")
    assert refused([*flags, "--check"], capsys)[0] == 78


def test_an_unknown_key_in_the_file_is_named(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "engine.toml"
    file.write_text("[limits]\nmax_active = 5\n")
    assert refused(flags, capsys) == (78, f"{file}: limits.max_active: no such setting")


def test_a_missing_configuration_file_is_named(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.toml"
    assert refused([*flags, "--conf", str(missing)], capsys) == (78, f"{missing}: no such file")


def test_a_wrong_flag_is_named_by_itself(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert refused([*flags, "--workers", "many"], capsys) == (78, "--workers: expected int, got str")


def test_a_wrong_variable_is_named_by_itself(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLPX_ENGINE_EVENTS_BATCH_MS", "soon")
    assert refused(flags, capsys) == (78, "RLPX_ENGINE_EVENTS_BATCH_MS: expected float, got str")


def test_a_missing_chain_is_named_by_the_file_it_would_be(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--check"]):
        code, line = refused([*flags, "--chain", "nochain", *more], capsys)
        assert code == 78
        assert line.endswith("/conf/nochain.toml: no such file")


def test_a_key_that_others_can_read_is_a_matter_of_permission(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "node.key"
    key.chmod(0o644)
    assert refused(flags, capsys) == (77, f"{key}: others can read the node key (mode 0644); chmod 600 it")


def test_a_key_that_is_none_is_not_shown(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "node.key").write_text(KEY + "22")
    code, line = refused(flags, capsys)
    assert code == 78
    assert "not a node key" in line
    assert KEY not in line


def test_a_run_directory_that_is_held_says_by_whom(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = RunDir(tmp_path / "run")
    holder.take()
    code, line = refused(flags, capsys)
    holder.leave()
    assert (code, line) == (69, f"{tmp_path}/run: run_dir is held by another engine, process {os.getpid()}")


def test_a_run_directory_whose_path_is_too_long_is_refused_before_anything_is_made(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = tmp_path / ("x" * 100)
    code, line = refused([*flags, "--run-dir", str(long)], capsys)
    assert code == 78
    assert "run_dir is too long for a Unix socket" in line
    assert not long.exists()


def test_a_port_that_is_taken_is_named_and_the_run_directory_left(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        assert refused([*flags, "--listen", address], capsys) == (69, f"listen: {address}: Address already in use")
    again = RunDir(tmp_path / "run")
    again.take()
    again.leave()


def test_an_address_that_is_not_ours_is_named(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, line = refused([*flags, "--listen", "192.0.2.1:30303"], capsys)
    assert code == 69
    assert line.startswith("listen: 192.0.2.1:30303: ")


# -- running ----------------------------------------------------------------------------------------------------------------


class ScriptedEngine:
    """Stands for the engine: it runs until it is stopped, and keeps what was done to it."""

    made: Self | None = None
    has_failed = False
    enode = "enode://ab@127.0.0.1:30303"
    # What the start does: nothing, or raise.
    starting: Callable[[], None] = staticmethod(lambda: None)
    # What happens while it waits.
    happening: Callable[[], None] = staticmethod(lambda: None)
    # What happens while it closes, which waits for a `kill` then.
    closing: Callable[[], None] | None = None

    def __init__(self, settings: Settings, *_: object) -> None:
        self.settings = settings
        self.calls: list[str] = []
        self.reloaded: list[Settings] = []
        self.stopping = asyncio.Event()
        self.killed = asyncio.Event()
        self.listening: socket.socket | None = None
        type(self).made = self

    async def start(self, listening: socket.socket | None) -> None:
        self.listening = listening
        try:
            self.starting()
        except BaseException:
            if listening is not None:
                listening.close()
            raise

    async def wait(self) -> None:
        self.happening()
        async with asyncio.timeout(10):
            await self.stopping.wait()

    async def close(self) -> None:
        self.calls.append("close")
        if self.closing is not None:
            self.closing()
            async with asyncio.timeout(10):
                await self.killed.wait()
        if self.listening is not None:
            self.listening.close()

    def stop(self) -> None:
        self.calls.append("stop")
        self.stopping.set()

    def kill(self) -> None:
        self.calls.append("kill")
        self.killed.set()

    def reload(self, settings: Settings) -> list[str]:
        self.reloaded.append(settings)
        self.stop()
        return []

    def on_fault(self, *_: Any) -> None:
        raise AssertionError("a fault in a callback")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedEngine]:
    """Its class: a test says what happens, and finds the engine that was made."""

    class OwnEngine(ScriptedEngine):
        pass

    monkeypatch.setattr(command, "Engine", OwnEngine)
    return OwnEngine


def made(engine: type[ScriptedEngine]) -> ScriptedEngine:
    """The engine that ran."""
    assert engine.made is not None
    return engine.made


def signalled(*numbers: int) -> Callable[[], None]:
    """Send this process signals."""

    def send() -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    return staticmethod(send)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ready_is_one_line_and_a_signal_ends_it_well(
    engine: type[ScriptedEngine], flags: list[str], tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.happening = signalled(number)
    assert ended([*flags, "--workers", "3"]) == 0
    assert capsys.readouterr().out == f"ready {engine.enode} workers=3 run-dir={tmp_path}/run\n"
    assert made(engine).calls == ["stop", "close"]
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["lock"]


def test_a_second_signal_is_quick(engine: type[ScriptedEngine], flags: list[str]) -> None:
    engine.happening = signalled(signal.SIGTERM)
    engine.closing = signalled(signal.SIGTERM)
    assert ended(flags) == 0
    assert made(engine).calls == ["stop", "close", "kill"]


def test_an_empty_listen_listens_nowhere(engine: type[ScriptedEngine], flags: list[str]) -> None:
    engine.happening = signalled(signal.SIGTERM)
    assert ended([*flags, "--listen", ""]) == 0
    assert made(engine).listening is None


def test_sighup_reads_the_configuration_again_under_the_same_flags(
    engine: type[ScriptedEngine], flags: list[str], tmp_path: Path
) -> None:
    def changed() -> None:
        (tmp_path / "engine.toml").write_text("workers = 9\n[limits]\nmax_active_inbound = 1\n")
        os.kill(os.getpid(), signal.SIGHUP)

    engine.happening = staticmethod(changed)
    assert ended([*flags, "--workers", "1"]) == 0
    [reloaded] = made(engine).reloaded
    assert reloaded.limits.max_active_inbound == 1
    assert reloaded.workers == 1
    assert reloaded.chain == "dev"


def test_a_configuration_that_is_wrong_now_is_not_taken_and_harms_nothing(
    engine: type[ScriptedEngine], flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        (tmp_path / "engine.toml").write_text("workers = 'x'\n")
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)

    engine.happening = staticmethod(broken)
    assert ended(flags) == 0
    assert made(engine).reloaded == []
    assert "workers: expected int, got str" in capsys.readouterr().err


def test_an_endpoint_that_is_taken_is_unavailable(
    engine: type[ScriptedEngine], flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def taken() -> None:
        raise zmq.ZMQError(zmq.EADDRINUSE)

    engine.starting = staticmethod(taken)
    assert refused(flags, capsys) == (69, "control.endpoint or events.endpoint: Address already in use")


def test_a_fault_while_it_ran_is_exit_code_70(engine: type[ScriptedEngine], flags: list[str]) -> None:
    engine.happening = signalled(signal.SIGTERM)
    engine.has_failed = True
    assert ended(flags) == 70


@pytest.mark.parametrize(
    "error", [OSError(11, "Resource temporarily unavailable"), RuntimeError("a worker ended"), TimeoutError()], ids=repr
)
def test_workers_that_do_not_start_are_a_fault_of_ours_said_in_one_line(
    engine: type[ScriptedEngine], flags: list[str], error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing() -> None:
        raise error

    engine.starting = staticmethod(failing)
    assert refused(flags, capsys)[0] == 70


def test_that_nothing_is_compiled_is_said_with_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    with structlog.testing.capture_logs() as logged:
        monkeypatch.setattr(command, "NATIVE", object())
        command.warn_where_not_compiled()
        assert not logged
        monkeypatch.setattr(command, "NATIVE", None)
        monkeypatch.setattr(command, "WHY_NOT_NATIVE", "no libcrypto")
        command.warn_where_not_compiled()
    assert [(line["log_level"], line["cause"]) for line in logged] == [("warning", "no libcrypto")]
