"""`rlpx-engine` until it serves: flags, `--check`, every refusal with its line and exit code, signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
import structlog.testing

from rlpx.engine import __main__ as command
from rlpx.engine.__main__ import main, parser
from rlpx.engine.process.journal import Journal
from rlpx.engine.process.version import VERSION
from rlpx.engine.settings.fields import as_toml, setting_fields
from rlpx.engine.settings.node_key import KeyHold
from rlpx.engine.settings.run_dir import RunDir
from rlpx.engine.settings.settings import Settings
from rlpx.protocol.mistakes import ConfigError
from rlpx.protocol.rlpx.crypto import PrivateKey
from rlpx.protocol.wording import as_text

KEY = "11" * 32


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("RLPX_ENGINE_"):
            monkeypatch.delenv(name)
    # This process lives on after the test.
    monkeypatch.setattr("gc.freeze", lambda: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    # The command blocks signals before its process ends, and the loop leaves its handlers behind.
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
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
        live = "; SIGHUP reads it again" if item.is_live else ""
        assert f"(default: {as_text(item.default) or 'none'}{live})" in words


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
    assert 'access.deny_cidrs = ["10.0.0.0/8", "::1/128"]    # --access.deny-cidrs' in lines
    assert 'chain = "dev"    # --chain' in lines
    assert f"conduct.ends_on_breach = true    # {tmp_path / 'engine.toml'}" in lines
    assert f"workers = {Settings().workers}    # {tmp_path / 'engine.toml'}" in lines
    assert not (tmp_path / "run").exists()


def test_what_check_prints_can_be_fed_back(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLPX_ENGINE_PROTOCOLS_CLIENT", 'q"uo\\te\u00fc\U0001f40d\x7f/1')
    main([*flags, "--check", "--protocols.extra", "wit/0/4,abc/1/2", "--listen", ""])
    first = capsys.readouterr().out
    again = tmp_path / "again.toml"
    again.write_text(first, encoding="ascii")
    monkeypatch.delenv("RLPX_ENGINE_PROTOCOLS_CLIENT")
    main(["--conf", str(again), "--check"])
    values = [line.partition("    # ")[0] for line in first.splitlines()]
    assert [line.partition("    # ")[0] for line in capsys.readouterr().out.splitlines()] == values


def test_check_says_where_the_run_directory_and_the_key_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    conf = tmp_path / "engine.toml"
    conf.touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    main(["--conf", str(conf), "--check"])
    lines = capsys.readouterr().out.splitlines()
    assert f'run_dir = "{tmp_path}/runtime/rlpx-engine"    # default' in lines
    assert f'node_key = "{tmp_path}/state/rlpx-engine/node.key"    # default' in lines


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
    assert refused(flags, capsys) == (
        78,
        f"{file}: limits.max_active_inbound: expected a whole number from 0 to 1000000, for example 2000; got 'many'",
    )
    assert refused([*flags, "--check"], capsys)[0] == 78


def test_an_unknown_key_in_the_file_is_named(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "engine.toml"
    file.write_text("[limits]\nmax_active = 5\n")
    assert refused(flags, capsys) == (
        78,
        f"{file}: limits.max_active: no such setting; did you mean max_active_inbound or max_active_outbound?",
    )


def test_a_missing_configuration_file_is_named(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.toml"
    assert refused([*flags, "--conf", str(missing)], capsys) == (78, f"{missing}: no such file")


def test_a_wrong_flag_is_named_by_itself(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert refused([*flags, "--workers", "many"], capsys) == (
        78,
        "--workers: expected a whole number from 1 to 128, for example 2; got 'many'",
    )


def test_a_wrong_variable_is_named_by_itself(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLPX_ENGINE_EVENTS_BATCH_MS", "soon")
    assert refused(flags, capsys) == (
        78,
        "RLPX_ENGINE_EVENTS_BATCH_MS: expected a number above 0 and up to 60000, for example 2.0; got 'soon'",
    )


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
    """Stands for the engine: it runs until it is stopped, and records the calls to it."""

    made: Self | None = None
    has_failed = False
    is_healthy = True
    summary = "nothing"
    node = SimpleNamespace(enode="enode://ab@127.0.0.1:30303", is_enode_guessed=False)
    # The action of the start: nothing, or raise.
    starting: Callable[[], None] = staticmethod(lambda: None)
    # The action while it waits.
    happening: Callable[[], None] = staticmethod(lambda: None)
    # The action while it closes; then it waits for a `kill`.
    closing: Callable[[], None] | None = None

    def __init__(self, settings: Settings, _identity: object, run_dir: RunDir) -> None:
        self.settings = settings
        self.run_dir = run_dir
        self.calls: list[str] = []
        self.reloaded: list[Settings] = []
        self.stopping = asyncio.Event()
        self.killed = asyncio.Event()
        self.listening: socket.socket | None = None
        self.journal = Journal()
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
        async with asyncio.timeout(60):
            await self.stopping.wait()

    async def close(self) -> None:
        self.calls.append("close")
        if self.closing is not None:
            self.closing()
            async with asyncio.timeout(60):
                await self.killed.wait()
        if self.listening is not None:
            self.listening.close()

    def stop(self) -> None:
        self.calls.append("stop")
        self.stopping.set()

    def kill(self) -> None:
        self.calls.append("kill")
        self.killed.set()

    def restart_workers(self) -> None:
        self.calls.append("restart")
        self.stop()

    def reload(self, settings: Settings) -> list[str]:
        self.reloaded.append(settings)
        self.stop()
        return []

    def on_fault(self, *_: Any) -> None:
        raise AssertionError("a fault in a callback")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedEngine]:
    """Its class: a test sets what happens, and finds the engine that was made."""

    class OwnEngine(ScriptedEngine):
        node = SimpleNamespace(enode="enode://ab@127.0.0.1:30303", is_enode_guessed=False)

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
    assert capsys.readouterr().out == f"ready {engine.node.enode} workers=3 run-dir={tmp_path}/run\n"
    assert made(engine).calls == ["stop", "close"]
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["lock"]


def test_the_start_is_a_line_of_the_log(
    engine: type[ScriptedEngine], flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    engine.happening = signalled(signal.SIGTERM)
    assert ended(flags) == 0
    [line] = [line for line in capsys.readouterr().err.splitlines() if "the engine has started" in line]
    told = json.loads(line)
    assert (told["level"], told["version"], told["chain"], told["workers"]) == ("info", VERSION, "dev", 2)
    assert (told["listen"], told["limits"]["max_active_outbound"]) == ("127.0.0.1:0", 500)


def test_what_is_there_at_the_start_is_not_looked_through_for_garbage(
    engine: type[ScriptedEngine], flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen: list[bool] = []
    monkeypatch.setattr("gc.freeze", lambda: frozen.append(True))
    engine.happening = signalled(signal.SIGTERM)
    assert ended(flags) == 0
    assert frozen == [True]


def test_a_second_signal_is_quick(engine: type[ScriptedEngine], flags: list[str]) -> None:
    engine.happening = signalled(signal.SIGTERM)
    engine.closing = signalled(signal.SIGTERM)
    assert ended(flags) == 0
    assert made(engine).calls == ["stop", "close", "kill"]


def test_an_empty_listen_listens_nowhere_and_has_no_enode(
    engine: type[ScriptedEngine], flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.happening = signalled(signal.SIGTERM)
    engine.node.enode = None
    assert ended([*flags, "--listen", ""]) == 0
    assert made(engine).listening is None
    assert capsys.readouterr().out == f"ready not-listening workers=2 run-dir={tmp_path}/run\n"


def test_an_address_that_is_a_guess_is_marked(
    engine: type[ScriptedEngine], flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.happening = signalled(signal.SIGTERM)
    engine.node.is_enode_guessed = True
    assert ended(flags) == 0
    assert capsys.readouterr().out == f"ready {engine.node.enode} workers=2 run-dir={tmp_path}/run external-ip=guessed\n"


def test_a_name_is_listened_on(engine: type[ScriptedEngine], flags: list[str]) -> None:
    engine.happening = signalled(signal.SIGTERM)
    assert ended([*flags, "--listen", "localhost:0"]) == 0
    assert made(engine).listening is not None


def test_a_name_that_nobody_knows_is_unavailable(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, line = refused([*flags, "--listen", "no-such-host.invalid:1"], capsys)
    assert code == 69
    assert line.startswith("listen: no-such-host.invalid:1: ")


def test_the_second_engine_of_one_key_says_so(
    engine: type[ScriptedEngine], flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.happening = signalled(signal.SIGTERM)
    first = KeyHold(tmp_path / "node.key")
    assert first.take()
    assert ended(flags) == 0
    assert "the node key is in use by another engine" in capsys.readouterr().err
    first.leave()
    assert ended(flags) == 0
    assert "in use" not in capsys.readouterr().err


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
    assert "workers: expected a whole number from 1 to 128" in capsys.readouterr().err


def test_a_configuration_that_came_through_a_pipe_is_not_waited_for_again(
    engine: type[ScriptedEngine], flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def now_a_pipe() -> None:
        (tmp_path / "engine.toml").unlink()
        os.mkfifo(tmp_path / "engine.toml")
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)

    engine.happening = staticmethod(now_a_pipe)
    assert ended(flags) == 0
    assert made(engine).reloaded == []
    assert "a pipe, which can be read only once" in capsys.readouterr().err


def test_no_name_is_no_configuration_file(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, words = refused([*flags, "--conf", ""], capsys)
    assert (code, words) == (64, "--conf: expected a file, for example conf/engine.toml; got '' (--help says more)")


def test_an_endpoint_that_is_taken_is_unavailable(
    engine: type[ScriptedEngine], flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def taken() -> None:
        raise ConfigError("events.endpoint: tcp://127.0.0.1:1: Address already in use", 69)

    engine.starting = staticmethod(taken)
    assert refused(flags, capsys) == (69, "events.endpoint: tcp://127.0.0.1:1: Address already in use")
    # The parts that had begun were closed.
    assert "close" in made(engine).calls


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Yields the notifications that a service manager gets."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        def take() -> list[str]:
            words: list[str] = []
            with suppress(BlockingIOError):
                while True:
                    words.append(manager.recv(4096).decode())
            return words

        yield take


def test_the_service_manager_hears_of_readiness_reload_and_end(
    engine: type[ScriptedEngine], flags: list[str], told: Callable[[], list[str]]
) -> None:
    engine.happening = staticmethod(signalled(signal.SIGHUP))
    assert ended(flags) == 0
    heard = [words.partition("=")[0] for words in told()]
    assert heard == ["READY", "STATUS", "RELOADING", "READY", "STOPPING"]


@pytest.mark.usefixtures("engine")
def test_the_service_manager_hears_why_nothing_started(flags: list[str], told: Callable[[], list[str]]) -> None:
    assert ended([*flags, "--listen", "192.0.2.1:30303"]) == 69
    assert told()[0].startswith("STATUS=listen: 192.0.2.1:30303: ")


def test_where_the_curve_cannot_be_used_nothing_starts(
    engine: type[ScriptedEngine], flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The curve cannot be used under systemd's MemoryDenyWriteExecute if protocol/c is not compiled."""

    def ecdh(_key: PrivateKey, _point: object) -> bytes:
        raise MemoryError("Cannot allocate write+execute memory")

    monkeypatch.setattr(PrivateKey, "ecdh", ecdh)
    code, line = refused(flags, capsys)
    assert code == 69
    assert line.startswith("memory that is writable and executable is forbidden here")
    assert engine.made is None


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
        command.warn_if_not_compiled()
        assert not logged
        monkeypatch.setattr(command, "NATIVE", None)
        monkeypatch.setattr(command, "WHY_NOT_NATIVE", "no libcrypto")
        command.warn_if_not_compiled()
    assert [(line["log_level"], line["cause"]) for line in logged] == [("warning", "no libcrypto")]
