"""Scenario files: the supplied ones are valid, and a mistake is one line that names file and key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlpx.engine.settings.conf import scenario_names
from rlpx.engine.swarm.scenario import load_scenario, scenario_file
from rlpx.protocol.bus.swarm import Client
from rlpx.protocol.mistakes import ConfigError


def test_every_scenario_that_comes_along_can_be_read() -> None:
    assert len(scenario_names()) >= 6
    for name in scenario_names():
        assert load_scenario(scenario_file(name), {}).description


def test_flags_change_numbers_of_a_scenario() -> None:
    scenario = load_scenario(scenario_file("smoke"), {"peers": 9, "processes": 1, "seconds": 2.5})
    assert (scenario.peers, scenario.processes, scenario.seconds) == (9, 1, 2.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "description: there must be one"),
        ("description = 'x'\npears = 3", "pears: no such setting; did you mean peers?"),
        ("description = 'x'\npeers = 0", "peers: expected a whole number from 1 to 100000, for example 60; got 0"),
        ("description = 'x'\n[ramp]\nspeed = 1", "ramp.speed: no such setting"),
        ("description = 'x'\n[faults]\nbad_mac = 0.1", "faults.bad_mac: no such setting; did you mean bad-mac"),
        (
            "description = 'x'\n[faults]\nbad-mac = 2",
            "faults.bad-mac: expected a number from 0 to 1, for example 0.0; got",
        ),
        (
            "description = 'x'\n[faults]\nreset = 0.7\ngarbage = 0.7",
            "faults: together with churn.share they are 1.4 of all peers",
        ),
        ("description = 'x'\n[clients]\n", "clients: there must be one"),
        ("description = 'x'\n[clients]\nparity = 1", "clients.parity: no such setting"),
        (
            "description = 'x'\n[clients]\ngeth = 'all'",
            "clients.geth: expected a number from 0 to 1000, for",
        ),
        (
            "description = 'x'\n[messages]\nrequests = ['header']",
            "messages.requests[0]: expected one of headers, bodies, transactions, receipts",
        ),
        ("description = 'x'\n[slots]\nslot_s = 1.0", "slots.burst_s"),
        ("description = 'x'\npeers = 1\nprocesses = 2", "processes"),
        ("description = ", "not TOML"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_scenario(scenario_file(str(file)), {})
    assert words in str(error.value)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)
    assert error.value.exit_code == os.EX_CONFIG


def test_a_flag_out_of_bounds_is_named_as_the_flag() -> None:
    with pytest.raises(ConfigError, match=r"^--peers: expected a whole number from 1 to 100000, for example 60; got 0"):
        load_scenario(scenario_file("smoke"), {"peers": 0})


def test_few_peers_take_few_processes_where_a_flag_does_not_say_otherwise() -> None:
    assert load_scenario(scenario_file("smoke"), {"peers": 1}).processes == 1
    with pytest.raises(ConfigError, match=r"^--processes: 3 are more than the 2 peers"):
        load_scenario(scenario_file("smoke"), {"peers": 2, "processes": 3})


def test_a_client_that_is_not_named_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("description = 'x'\n[clients]\ngeth = 3")
    assert load_scenario(file, {}).clients.shares() == {Client.GETH: 3.0}
    assert set(load_scenario(scenario_file("smoke"), {}).clients.shares()) == set(Client)


def test_a_scenario_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such file; there are .*smoke"):
        scenario_file("nowhere")
