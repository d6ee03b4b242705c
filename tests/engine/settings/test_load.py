"""Flags, environment and file become settings with origins; every mistake is one line that names its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.engine.settings.fields import as_toml, setting_fields
from rlpx.engine.settings.load import default_file, load
from rlpx.engine.settings.settings import Settings
from rlpx.protocol.mistakes import ConfigError
from tests.engine.settings.mistakes import complaint, written
from tests.generated import examples


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    loaded = load({}, {}, written(tmp_path, ""))
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert set(loaded.origins) == {item.key for item in setting_fields()}


def test_the_default_file_gives_the_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, as_toml())
    loaded = load({}, {}, file)
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {str(file)}


def test_a_flag_beats_the_environment_beats_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "workers = 3\n[limits]\nmax_active_inbound = 3\nmax_active_outbound = 3\n")
    environment = {"RLPX_ENGINE_WORKERS": "4", "RLPX_ENGINE_LIMITS_MAX_ACTIVE_INBOUND": "4", "HOME": "/"}
    loaded = load({"workers": "5"}, environment, file)
    assert loaded.settings.workers == 5
    assert loaded.settings.limits.max_active_inbound == 4
    assert loaded.settings.limits.max_active_outbound == 3
    assert loaded.origins["workers"] == "--workers"
    assert loaded.origins["limits.max_active_inbound"] == "RLPX_ENGINE_LIMITS_MAX_ACTIVE_INBOUND"
    assert loaded.origins["limits.max_active_outbound"] == str(file)
    assert loaded.origins["limits.max_pending_inbound"] == "default"


def test_an_empty_value_is_a_value(tmp_path: Path) -> None:
    loaded = load({"listen": ""}, {"RLPX_ENGINE_THROTTLE_EXEMPT_CIDRS": ""}, written(tmp_path, ""))
    assert loaded.settings.listen == ""
    assert loaded.settings.throttle.exempt_cidrs == ()


def test_a_list_is_separated_by_commas(tmp_path: Path) -> None:
    flags = {"protocols.eth": "68, 69", "access.deny_cidrs": "10.0.0.0/8,::1/128", "protocols.snap": "1"}
    loaded = load(flags, {}, written(tmp_path, ""))
    assert loaded.settings.protocols.eth == (68, 69)
    assert loaded.settings.protocols.snap == (1,)
    assert loaded.settings.access.deny_cidrs == ("10.0.0.0/8", "::1/128")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("workers = '2'", "workers: expected a whole number from 1 to 128, for example 2; got '2'"),
        ("workers = 2.0", "workers: expected a whole number from 1 to 128, for example 2; got 2.0"),
        ("workers = true", "workers: expected a whole number from 1 to 128, for example 2; got true"),
        ("workers = 0", "workers: expected a whole number from 1 to 128, for example 2; got 0"),
        ("workers = 129", "workers: expected a whole number from 1 to 128, for example 2; got 129"),
        (f"workers = 0x{'f' * 200}", "workers: expected a whole number from 1 to 128, for example 2; got a much larger"),
        ("workers = 1979-05-27", "workers: expected a whole number from 1 to 128, for example 2; got 1979-05-27"),
        ("wrokers = 2", "wrokers: no such setting; did you mean workers?"),
        ("[limits]\nmax_active = 2", "limits.max_active: no such setting; did you mean max_active_inbound"),
        ("[limit]", "limit: no such setting; did you mean limits?"),
        ("max_active_inbound = 2", "max_active_inbound: no such setting; did you mean limits.max_active_inbound?"),
        ("[throttle]\nworkers = 2", "throttle.workers: no such setting; did you mean workers?"),
        ("endpoint = 'x'", "endpoint: no such setting; did you mean events.endpoint or control.endpoint or data.endpoint?"),
        ("limits = 3", "limits: expected a table of settings; got 3"),
        ("[timeouts]\nping_s = 0", "timeouts.ping_s: expected a number above 0 and up to 86400, for example 15.0; got 0"),
        (
            "[timeouts]\nping_s = nan",
            "timeouts.ping_s: expected a number above 0 and up to 86400, for example 15.0; got n",
        ),
        (
            "[timeouts]\nping_s = inf",
            "timeouts.ping_s: expected a number above 0 and up to 86400, for example 15.0; got i",
        ),
        ("[protocols]\neth = []", "protocols.eth: expected a list of at least 1 item, each a whole number from 66 to 72"),
        ("[protocols]\neth = 68", "protocols.eth: expected a list of at least 1 item, each a whole number from 66 to 72"),
        ("[protocols]\neth = [65]", "protocols.eth[0]: expected a whole number from 66 to 72, for example 66; got 65"),
        (
            "[protocols]\neth = [68, '69']",
            "protocols.eth[1]: expected a whole number from 66 to 72, for example 66; got '6",
        ),
        ("[protocols]\nextra = ['WIT']", "protocols.extra[0]: expected NAME/VERSION/MESSAGES[/MAX_BYTES]"),
        ("[protocols]\nextra = ['eth/69/9']", "protocols.extra: expected NAME/VERSION/MESSAGES[/MAX_BYTES]"),
        ("[protocols]\nrequired = ['W']", "protocols.required[0]: expected a name of up to 8 lower-case letters and digits"),
        ("[log]\nlevel = 'loud'", "log.level: expected one of debug, error, info, warning, for example info; got 'loud'"),
        ("[conduct]\nends_on_breach = 1", "conduct.ends_on_breach: expected true or false, for example true; got 1"),
        ("[throttle]\nexempt_cidrs = ['10.0.0.1/8']", "throttle.exempt_cidrs: expected a network, ADDRESS/BITS"),
        ("[access]\nallow_cidrs = ['example.org']", "access.allow_cidrs: expected a network, ADDRESS/BITS"),
        ("[peers]\nstatic = ['enode://ab@1.2.3.4:5']", "peers.static: expected an enode URL"),
        ("listen = 'localhost'", "listen: expected HOST:PORT, where HOST is a name"),
        ("listen = '1.2.3.4'", "listen: expected HOST:PORT, where HOST is a name"),
        ("external_ip = '0.0.0.0'", "external_ip: expected an IP address that peers can dial, for example 203.0.113.7"),
        ("[control]\nendpoint = 'tcp://localhost:5555'", "control.endpoint: expected tcp://HOST:PORT with a numeric host"),
        ("[events]\nendpoint = 'ipc:///tmp/x'", "events.endpoint: expected tcp://HOST:PORT with a numeric host"),
        (
            "[curve]\ninsecure = true\n[control]\nendpoint = 'tcp://0.0.0.0:5555'",
            "control.endpoint: tcp://0.0.0.0:5555 is not on loopback",
        ),
        ("workers = = 2", "not TOML: "),
        (f"workers = {'9' * 5000}", "not TOML: "),
        (f"workers = {'[' * 5000}", "not TOML: "),
    ],
)
def test_a_wrong_line_of_the_file_is_named_by_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    file = written(tmp_path, text)
    error = complaint(lambda: load({}, {}, file))
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
        ("control.endpoint", "tcp://example.org:5555"),
        ("events.endpoint", "tcp://127.0.0.1"),
    ],
)
def test_a_wrong_value_from_flag_or_environment_is_named_by_its_own_name(tmp_path: Path, key: str, value: str) -> None:
    item = next(item for item in setting_fields() if item.key == key)
    file = written(tmp_path, "")
    by_flag = complaint(lambda: load({key: value}, {}, file))
    by_variable = complaint(lambda: load({}, {item.variable: value}, file))
    assert str(by_flag).startswith(f"{item.flag}: expected ")
    assert str(by_variable).startswith(f"{item.variable}: expected ")
    assert "regex" not in str(by_flag)
    assert by_flag.exit_code == by_variable.exit_code == 78


def test_a_wrong_value_in_the_file_is_wrong_even_where_a_flag_beats_it(tmp_path: Path) -> None:
    file = written(tmp_path, "workers = 'x'")
    assert str(complaint(lambda: load({"workers": "2"}, {}, file))).startswith(f"{file}: workers: ")


def test_a_variable_that_names_no_setting_is_a_mistake(tmp_path: Path) -> None:
    file = written(tmp_path, "")
    error = complaint(lambda: load({}, {"RLPX_ENGINE_WROKERS": "2", "OTHER": "x"}, file))
    words = "RLPX_ENGINE_WROKERS: no such setting; did you mean RLPX_ENGINE_WORKERS?"
    assert (str(error), error.exit_code) == (words, 78)


def test_a_key_of_two_lines_is_complained_of_in_one(tmp_path: Path) -> None:
    file = written(tmp_path, '"two\\nlines" = 1')
    assert "no such setting" in str(complaint(lambda: load({}, {}, file)))


@examples(300)
@given(st.sampled_from(sorted(item.key for item in setting_fields())), st.text(max_size=30))
def test_no_text_of_a_flag_does_worse_than_one_line(tmp_path_factory: pytest.TempPathFactory, key: str, value: str) -> None:
    file = tmp_path_factory.getbasetemp() / "empty.toml"
    file.touch()
    try:
        load({key: value}, {}, file)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - most texts are legal somewhere, so nothing must raise


def test_a_clone_has_its_file_in_conf() -> None:
    root = Path(__file__).resolve().parents[3]
    assert default_file({}) == root / "conf" / "engine.toml"


def test_elsewhere_the_file_is_the_users_own_and_made_of_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "rlpx.engine.settings.load.__file__", str(tmp_path / "site" / "rlpx" / "engine" / "settings" / "load.py")
    )
    file = default_file({"XDG_CONFIG_HOME": str(tmp_path / "home")})
    assert file == tmp_path / "home" / "rlpx-engine" / "engine.toml"
    assert file.read_text() == as_toml()
    file.write_text("workers = 9\n")
    assert default_file({"XDG_CONFIG_HOME": str(tmp_path / "home")}).read_text() == "workers = 9\n"


def test_a_file_whose_folder_is_a_file_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "rlpx.engine.settings.load.__file__", str(tmp_path / "site" / "rlpx" / "engine" / "settings" / "load.py")
    )
    (tmp_path / "home").touch()
    error = complaint(lambda: default_file({"XDG_CONFIG_HOME": str(tmp_path / "home")}))
    assert error.exit_code == 78


def test_text_that_is_not_utf_8_is_a_mistake(tmp_path: Path) -> None:
    error = complaint(lambda: load({"protocols.client": "x\udcff"}, {}, written(tmp_path, "")))
    assert str(error).startswith("--protocols.client: expected text in UTF-8; got ")
