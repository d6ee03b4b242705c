"""Flags, environment and file become settings with origins; every mistake is one line that names its place."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import config
from engine.config import ConfigError, RunDir
from engine.settings import Settings, as_toml, setting_fields

KEY = "11" * 32


def written(folder: Path, text: str) -> Path:
    """A configuration file."""
    file = folder / "engine.toml"
    file.write_text(text)
    return file


def complaint(call: Callable[[], object]) -> ConfigError:
    """The one line that a mistake is worth."""
    with pytest.raises(ConfigError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return caught.value


# -- settings ---------------------------------------------------------------------------------------------------------------


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    loaded = config.load({}, {}, written(tmp_path, ""))
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert set(loaded.origins) == {item.key for item in setting_fields()}


def test_the_default_file_gives_the_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, as_toml())
    loaded = config.load({}, {}, file)
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {str(file)}


def test_a_flag_beats_the_environment_beats_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "workers = 3\n[limits]\nmax_active_inbound = 3\nmax_active_outbound = 3\n")
    environment = {"RLPX_ENGINE_WORKERS": "4", "RLPX_ENGINE_LIMITS_MAX_ACTIVE_INBOUND": "4", "HOME": "/"}
    loaded = config.load({"workers": "5"}, environment, file)
    assert loaded.settings.workers == 5
    assert loaded.settings.limits.max_active_inbound == 4
    assert loaded.settings.limits.max_active_outbound == 3
    assert loaded.origins["workers"] == "--workers"
    assert loaded.origins["limits.max_active_inbound"] == "RLPX_ENGINE_LIMITS_MAX_ACTIVE_INBOUND"
    assert loaded.origins["limits.max_active_outbound"] == str(file)
    assert loaded.origins["limits.max_pending_inbound"] == "default"


def test_an_empty_value_is_a_value(tmp_path: Path) -> None:
    loaded = config.load({"listen": ""}, {"RLPX_ENGINE_THROTTLE_EXEMPT_CIDRS": ""}, written(tmp_path, ""))
    assert loaded.settings.listen == ""
    assert loaded.settings.throttle.exempt_cidrs == ()


def test_a_list_is_separated_by_commas(tmp_path: Path) -> None:
    flags = {"protocols.eth": "68, 69", "access.deny_cidrs": "10.0.0.0/8,::1/128", "protocols.snap": "1"}
    loaded = config.load(flags, {}, written(tmp_path, ""))
    assert loaded.settings.protocols.eth == (68, 69)
    assert loaded.settings.protocols.snap == (1,)
    assert loaded.settings.access.deny_cidrs == ("10.0.0.0/8", "::1/128")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("workers = '2'", "workers: expected int, got str"),
        ("workers = 2.0", "workers: expected int, got float"),
        ("workers = true", "workers: expected int, got bool"),
        ("workers = 0", "workers: expected int >= 1"),
        ("workers = 129", "workers: expected int <= 128"),
        ("wrokers = 2", "wrokers: no such setting"),
        ("[limits]\nmax_active = 2", "limits.max_active: no such setting"),
        ("[limit]", "limit: no such setting"),
        ("limits = 3", "limits: expected object, got int"),
        ("[timeouts]\nping_s = 0", "timeouts.ping_s: expected float > 0.0"),
        ("[timeouts]\nping_s = nan", "timeouts.ping_s: expected float > 0.0"),
        ("[timeouts]\nping_s = inf", "timeouts.ping_s: expected float <= 86400.0"),
        ("[protocols]\neth = []", "protocols.eth: expected array of length >= 1"),
        ("[protocols]\neth = [65]", "protocols.eth[0]: expected int >= 66"),
        ("[protocols]\neth = ['69']", "protocols.eth[0]: expected int, got str"),
        ("[log]\nlevel = 'loud'", "log.level: invalid enum value 'loud'"),
        ("[throttle]\nexempt_cidrs = ['10.0.0.1/8']", "throttle.exempt_cidrs: 10.0.0.1/8 has host bits set"),
        ("[access]\nallow_cidrs = ['example.org']", "access.allow_cidrs: 'example.org' does not appear to be"),
        ("listen = 'localhost:30303'", "listen: 'localhost' is not an IP address"),
        ("listen = '1.2.3.4'", "listen: '1.2.3.4' is not HOST:PORT"),
        ("[control]\nendpoint = 'tcp://0.0.0.0:5555'", "control.endpoint: tcp://0.0.0.0:5555 is not tcp://127.0.0.1:PORT"),
        ("[events]\nendpoint = 'ipc:///tmp/x'", "events.endpoint: ipc:///tmp/x is not tcp://127.0.0.1:PORT"),
        ("workers = = 2", "not TOML: "),
    ],
)
def test_a_wrong_line_of_the_file_is_named_by_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    file = written(tmp_path, text)
    error = complaint(lambda: config.load({}, {}, file))
    assert str(error).startswith(f"{file}: {words}")
    assert error.exit_code == 78


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("workers", "two"),
        ("workers", ""),
        ("limits.max_active_inbound", "-1"),
        ("limits.max_active_inbound", "9" * 5000),
        ("timeouts.ping_s", "nan"),
        ("protocols.eth", "68,sixty-nine"),
        ("protocols.eth", ""),
        ("log.format", "xml"),
        ("listen", "nowhere"),
        ("listen", "1.2.3.4:65536"),
        ("listen", "1.2.3.4:-1"),
        ("access.deny_cidrs", "10.0.0.0/8,10.0.0.0/33"),
        ("control.endpoint", "tcp://192.168.0.1:5555"),
        ("events.endpoint", "tcp://127.0.0.1"),
    ],
)
def test_a_wrong_value_from_flag_or_environment_is_named_by_its_own_name(tmp_path: Path, key: str, value: str) -> None:
    item = next(item for item in setting_fields() if item.key == key)
    file = written(tmp_path, "")
    by_flag = complaint(lambda: config.load({key: value}, {}, file))
    by_variable = complaint(lambda: config.load({}, {item.variable: value}, file))
    assert str(by_flag).startswith(f"{item.flag}: ")
    assert str(by_variable).startswith(f"{item.variable}: ")
    assert by_flag.exit_code == by_variable.exit_code == 78


def test_a_wrong_value_in_the_file_is_wrong_even_where_a_flag_beats_it(tmp_path: Path) -> None:
    file = written(tmp_path, "workers = 'x'")
    assert str(complaint(lambda: config.load({"workers": "2"}, {}, file))).startswith(f"{file}: workers: ")


def test_a_variable_that_names_no_setting_is_a_mistake(tmp_path: Path) -> None:
    file = written(tmp_path, "")
    error = complaint(lambda: config.load({}, {"RLPX_ENGINE_WROKERS": "2", "OTHER": "x"}, file))
    assert (str(error), error.exit_code) == ("RLPX_ENGINE_WROKERS: no such setting", 78)


def test_an_endpoint_that_is_no_address_is_a_mistake_like_any_other(tmp_path: Path) -> None:
    file = written(tmp_path, "[control]\nendpoint = 'tcp://[::1'")
    assert str(complaint(lambda: config.load({}, {}, file))).startswith(f"{file}: control.endpoint: ")


def test_a_key_of_two_lines_is_complained_of_in_one(tmp_path: Path) -> None:
    file = written(tmp_path, '"two\\nlines" = 1')
    assert "no such setting" in str(complaint(lambda: config.load({}, {}, file)))


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    error = complaint(lambda: config.load({}, {}, tmp_path / "none.toml"))
    assert (str(error), error.exit_code) == (f"{tmp_path / 'none.toml'}: no such file", 78)


def test_a_file_that_cannot_be_read_is_a_matter_of_permission(tmp_path: Path) -> None:
    error = complaint(lambda: config.load({}, {}, tmp_path))
    assert (str(error), error.exit_code) == (f"{tmp_path}: Is a directory", 77)


def test_a_file_that_is_not_text_is_not_toml(tmp_path: Path) -> None:
    file = tmp_path / "engine.toml"
    file.write_bytes(b"\xff\xfe\x00")
    assert str(complaint(lambda: config.load({}, {}, file))).startswith(f"{file}: not TOML: ")


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.sampled_from(sorted(item.key for item in setting_fields())), st.text(max_size=30))
def test_no_text_of_a_flag_does_worse_than_one_line(tmp_path_factory: pytest.TempPathFactory, key: str, value: str) -> None:
    file = tmp_path_factory.getbasetemp() / "empty.toml"
    file.touch()
    try:
        config.load({key: value}, {}, file)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - most texts are legal somewhere, so nothing must raise


def test_a_clone_has_its_file_in_conf() -> None:
    root = Path(__file__).resolve().parents[2]
    assert config.default_file({}) == root / "conf" / "engine.toml"


def test_elsewhere_the_file_is_the_users_own_and_made_of_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "__file__", str(tmp_path / "site" / "engine" / "config.py"))
    file = config.default_file({"XDG_CONFIG_HOME": str(tmp_path / "home")})
    assert file == tmp_path / "home" / "rlpx-engine" / "engine.toml"
    assert file.read_text() == as_toml()
    file.write_text("workers = 9\n")
    assert config.default_file({"XDG_CONFIG_HOME": str(tmp_path / "home")}).read_text() == "workers = 9\n"


def test_a_file_that_cannot_be_made_is_a_matter_of_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "__file__", str(tmp_path / "site" / "engine" / "config.py"))
    (tmp_path / "home").touch()
    error = complaint(lambda: config.default_file({"XDG_CONFIG_HOME": str(tmp_path / "home")}))
    assert error.exit_code == 77


# -- addresses and endpoints ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("0.0.0.0:30303", ("0.0.0.0", 30303)),  # noqa: S104 - read, not bound
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("[::]:1", ("::", 1)),
    ],
)
def test_a_host_and_port_are_read(text: str, pair: tuple[str, int]) -> None:
    assert config.host_port(text) == pair


@pytest.mark.parametrize(
    "text", ["", ":", ":1", "1.2.3.4", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:65536", "1.2.3:1", "a:1", "1.2.3.4: 1", "[::1]"]
)
def test_what_is_no_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not HOST:PORT|is not an IP address"):
        config.host_port(text)


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:5555", "tcp://127.9.9.9:1", "tcp://[::1]:5555"])
def test_a_loopback_endpoint_is_one(endpoint: str) -> None:
    assert config.is_loopback_endpoint(endpoint)


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "tcp://",
        "tcp://*:5555",
        "tcp://0.0.0.0:5555",
        "tcp://[::]:5555",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:*",
        "tcp://127.0.0.1:99999",
        "tcp://localhost:5555",
        "tcp://eth0:5555",
        "tcp://10.0.0.1:5555",
        "tcp://127.0.0.1.example.org:5555",
        "ipc:///tmp/x",
        "inproc://x",
        "udp://127.0.0.1:5555",
        "127.0.0.1:5555",
    ],
)
def test_no_other_endpoint_is_taken_for_loopback(endpoint: str) -> None:
    assert not config.is_loopback_endpoint(endpoint)


# -- chain ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "network_id"), [("mainnet", 1), ("sepolia", 11155111), ("hoodi", 560048)])
def test_a_known_chain_is_found_by_its_name(name: str, network_id: int) -> None:
    chain = config.load_chain(name)
    assert (chain.name, chain.network_id) == (name, network_id)


def test_a_chain_of_the_users_own_is_found_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(f'name = "own"\nnetwork_id = 7\ngenesis_hash = "0x{"ab" * 32}"\n')
    chain = config.load_chain(str(file))
    assert (chain.network_id, chain.genesis) == (7, b"\xab" * 32)


def test_a_missing_chain_says_where_it_was_looked_for() -> None:
    error = complaint(lambda: config.load_chain("nochain"))
    assert str(error).startswith("--chain: ")
    assert str(error).endswith("conf/nochain.toml: no such file")
    assert error.exit_code == 78
    in_file = complaint(lambda: config.load_chain("nochain", "/etc/engine.toml"))
    assert str(in_file).startswith("/etc/engine.toml: chain: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "own.toml: name: is missing"),
        ('name = "x"\nnetwork_id = -1\ngenesis_hash = "0x' + "ab" * 32 + '"', "network_id: expected int >= 0"),
        ('name = "x"\nnetwork_id = 1\ngenesis_hash = "0xab"', "genesis_hash: expected str matching regex"),
        ('name = "x"\nnetwork_id = 1\ngenesis_hash = "0x' + "ab" * 32 + '"\nforks = []', "forks: no such setting"),
    ],
)
def test_a_wrong_chain_file_is_named_with_its_key(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text)
    assert words in str(complaint(lambda: config.load_chain(str(file))))
    assert str(complaint(lambda: config.load_chain(str(file)))).startswith(f"{file}: ")


# -- node key ---------------------------------------------------------------------------------------------------------------


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> str:
    """A key file."""
    file = folder / "node.key"
    file.write_bytes(content)
    file.chmod(mode)
    return str(file)


def test_a_missing_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "er" / "node.key"
    made = config.load_key(str(file), {})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().strip() == made.secret.hex()
    assert config.load_key(str(file), {}).secret == made.secret


def test_without_a_setting_the_key_is_in_the_state_directory(tmp_path: Path) -> None:
    config.load_key("", {"XDG_STATE_HOME": str(tmp_path)})
    assert (tmp_path / "rlpx-engine" / "node.key").exists()


@pytest.mark.parametrize("content", [KEY, f"{KEY}\n", f"0x{KEY}", KEY.upper()])
def test_a_key_is_read_in_the_spellings_that_clients_write(tmp_path: Path, content: str) -> None:
    assert config.load_key(key_file(tmp_path, content.encode()), {}).secret.hex() == KEY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601, 0o777])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = key_file(tmp_path, KEY.encode(), mode)
    error = complaint(lambda: config.load_key(file, {}))
    assert str(error) == f"{file}: others can read the node key (mode {mode:04o}); chmod 600 it"
    assert error.exit_code == 77


@pytest.mark.parametrize("content", [b"", b"\n", b"11" * 31, b"11" * 33, b"00" * 32, b"ff" * 32, b"zz" * 32, b"1" * 63])
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, content: bytes) -> None:
    file = key_file(tmp_path, content)
    error = complaint(lambda: config.load_key(file, {}))
    assert str(error) == f"{file}: not a node key: 64 hex digits, not zero and below the group order"
    assert error.exit_code == 78


def test_a_key_of_32_raw_bytes_is_refused_like_any_other_that_is_not_hex(tmp_path: Path) -> None:
    file = key_file(tmp_path, b"\xff\xfe" * 16)
    error = complaint(lambda: config.load_key(file, {}))
    assert str(error).startswith(f"{file}: not a node key")


def test_a_key_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    error = complaint(lambda: config.load_key(str(tmp_path / "node.key"), {}))
    assert (str(error), error.exit_code) == (f"{tmp_path / 'node.key'}: No space left on device", 77)
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_make_a_key_at_once_both_have_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "node.key"
    link = os.link

    def late(source: str, target: Path) -> None:
        key_file(tmp_path, KEY.encode())
        link(source, target)

    monkeypatch.setattr("os.link", late)
    assert config.load_key(str(file), {}).secret.hex() == KEY
    assert list(tmp_path.iterdir()) == [file]


def test_checking_a_key_reads_it_and_makes_none(tmp_path: Path) -> None:
    config.check_key(str(tmp_path / "none.key"), {})
    assert list(tmp_path.iterdir()) == []
    config.check_key(key_file(tmp_path, KEY.encode()), {})
    readable = key_file(tmp_path, KEY.encode(), 0o644)
    assert complaint(lambda: config.check_key(readable, {})).exit_code == 77


def test_a_key_that_cannot_be_made_is_a_matter_of_permission(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = complaint(lambda: config.load_key(str(tmp_path / "file" / "node.key"), {}))
    assert error.exit_code == 77


@pytest.mark.parametrize("load", [lambda path: config.load_key(path, {}), lambda path: config.run_dir_path(path, {})])
def test_a_home_of_nobody_is_a_mistake_of_one_line(load: Callable[[str], object]) -> None:
    complaint(lambda: load("~nobody-of-this-name/x"))


# -- run directory ----------------------------------------------------------------------------------------------------------


def test_the_run_directory_is_the_setting_else_the_runtime_directory_else_the_state_directory() -> None:
    assert config.run_dir_path("/x/y", {"XDG_RUNTIME_DIR": "/run/user/1"}) == Path("/x/y")
    assert config.run_dir_path("~/y", {}) == Path.home() / "y"
    assert config.run_dir_path("", {"XDG_RUNTIME_DIR": "/run/user/1"}) == Path("/run/user/1/rlpx-engine")
    assert config.run_dir_path("", {}) == Path.home() / ".local/state/rlpx-engine"


def test_a_run_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run" / "deep")
    run_dir.take()
    assert stat.S_IMODE(run_dir.path.stat().st_mode) == 0o700
    assert run_dir.endpoint("control") == f"ipc://{run_dir.path}/control.ipc"
    run_dir.leave()


def test_a_second_engine_hears_who_holds_the_run_directory(tmp_path: Path) -> None:
    first = RunDir(tmp_path)
    first.take()
    error = complaint(RunDir(tmp_path).take)
    assert str(error) == f"{tmp_path}: run_dir is held by another engine, process {os.getpid()}"
    assert error.exit_code == 69
    first.leave()
    second = RunDir(tmp_path)
    second.take()
    second.leave()


def test_what_a_killed_engine_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "control.ipc"))
    (tmp_path / "table.ipc").touch()
    (tmp_path / "notes.txt").touch()
    run_dir = RunDir(tmp_path)
    run_dir.take()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lock", "notes.txt", "table.ipc"]
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "events.ipc"))
    run_dir.leave()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lock", "notes.txt", "table.ipc"]


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o777])
def test_a_directory_that_others_can_enter_is_neither_taken_nor_changed(tmp_path: Path, mode: int) -> None:
    open_dir = tmp_path / "open"
    open_dir.mkdir()
    open_dir.chmod(mode)
    error = complaint(RunDir(open_dir).take)
    assert "others can enter it" in str(error)
    assert error.exit_code == 77
    assert stat.S_IMODE(open_dir.stat().st_mode) == mode
    assert list(open_dir.iterdir()) == []


def test_leaving_twice_is_harmless(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.take()
    run_dir.leave()
    run_dir.leave()


def test_the_longest_path_that_fits_a_unix_socket_is_taken_and_not_one_byte_more(tmp_path: Path) -> None:
    left = 107 - len(os.fsencode(tmp_path)) - len("//worker-127.ipc")
    fits = RunDir(tmp_path / ("x" * left))
    fits.take()
    assert len(fits.endpoint("worker-127").removeprefix("ipc://")) == 107
    fits.leave()
    error = complaint(RunDir(tmp_path / ("x" * (left + 1))).take)
    assert "run_dir is too long for a Unix socket: 108 bytes with the socket's name, 107 fit" in str(error)
    assert error.exit_code == 78


def test_a_path_is_measured_in_bytes_not_characters(tmp_path: Path) -> None:
    left = 107 - len(os.fsencode(tmp_path)) - len("//worker-127.ipc")
    assert "too long" in str(complaint(RunDir(tmp_path / ("ä" * left)).take))


def test_a_run_directory_that_cannot_be_made_is_a_matter_of_permission(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = complaint(RunDir(tmp_path / "file" / "run").take)
    assert error.exit_code == 77
    assert "run_dir" in str(error)


@pytest.mark.parametrize(
    "text", ["[access]\ndeny_cidrs = ['']", "[peers]\nstatic = ['']", "[protocols]\nextra = ['eth/70/18']"]
)
def test_an_empty_or_impossible_item_of_a_list_is_a_mistake(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, text)
    key = ".".join(text.replace("[", "").split(" = ")[0].split("]\n"))
    assert str(complaint(lambda: config.load({}, {}, file))).startswith(f"{file}: {key}: ")


def test_answers_must_come_sooner_than_pongs(tmp_path: Path) -> None:
    file = written(tmp_path, "[responders]\nanswer_s = 15")
    assert "must be below timeouts.ping_s" in str(complaint(lambda: config.load({}, {}, file)))
