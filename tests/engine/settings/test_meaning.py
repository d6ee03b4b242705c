"""Rules that types cannot express are checked as well; the error has the name that the user typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlpx.engine.settings.load import load
from tests.engine.settings.mistakes import complaint, written


def test_an_endpoint_that_is_no_address_is_a_mistake_like_any_other(tmp_path: Path) -> None:
    file = written(tmp_path, "[control]\nendpoint = 'tcp://[::1'")
    assert str(complaint(lambda: load({}, {}, file))).startswith(f"{file}: control.endpoint: ")


def test_what_peers_must_share_is_offered(tmp_path: Path) -> None:
    file = written(tmp_path, "[protocols]\nextra = ['wit/0/4']\nrequired = ['wit', 'eth']")
    assert load({}, {}, file).settings.protocols.required == ("wit", "eth")
    words = "expected what is offered: eth, wit, for example wit; got 'snap'"
    assert str(complaint(lambda: load({"protocols.required": "wit,snap"}, {}, file))) == f"--protocols.required: {words}"


def test_a_sub_protocol_that_is_named_twice_is_a_mistake(tmp_path: Path) -> None:
    file = written(tmp_path, "[protocols]\nextra = ['wit/0/4/65536', 'wit/1/4', 'wit/0/8']")
    assert str(complaint(lambda: load({}, {}, file))) == f"{file}: protocols.extra: wit/0 is named twice"


@pytest.mark.parametrize(
    "text", ["[access]\ndeny_cidrs = ['']", "[peers]\nstatic = ['']", "[protocols]\nextra = ['eth/70/18']"]
)
def test_an_empty_or_impossible_item_of_a_list_is_a_mistake(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, text)
    key = ".".join(text.replace("[", "").split(" = ")[0].split("]\n"))
    assert str(complaint(lambda: load({}, {}, file))).startswith(
        (f"{file}: {key}: expected ", f"{file}: {key}[0]: expected ")
    )


def test_answers_must_come_sooner_than_pongs(tmp_path: Path) -> None:
    file = written(tmp_path, "[responders]\nanswer_s = 15")
    assert "must be below timeouts.ping_s" in str(complaint(lambda: load({}, {}, file)))


def test_the_two_times_are_named_by_the_one_that_was_set(tmp_path: Path) -> None:
    file = written(tmp_path, "[timeouts]\nping_s = 5")
    assert str(complaint(lambda: load({}, {}, file))).startswith(f"{file}: timeouts.ping_s: responders.answer_s must")
    by_flag = complaint(lambda: load({"responders.answer_s": "20"}, {}, written(tmp_path, "")))
    assert str(by_flag) == "--responders.answer-s: responders.answer_s must be below timeouts.ping_s; they are 20 and 15"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "workers = 3\n[data]\nendpoint = 'tcp://127.0.0.1:65534'",
            "tcp://127.0.0.1:65534 must have a port from 1 to 65533",
        ),
        ("[data]\nendpoint = 'tcp://127.0.0.1:0'", "must have a port from 1 to 65534: each of the 2 workers has one"),
        ("[data]\nendpoint = 'tcp://localhost:5000'", "the host is not an address"),
        (
            "[data]\nendpoint = 'tcp://0.0.0.0:5000'\n[curve]\ninsecure = true",
            "is not on loopback, and curve.insecure is for",
        ),
    ],
)
def test_every_worker_must_have_a_port_that_may_be_open(tmp_path: Path, text: str, words: str) -> None:
    file = written(tmp_path, text)
    found = str(complaint(lambda: load({}, {}, file)))
    assert found.startswith(f"{file}: data.endpoint: ")
    assert words in found


@pytest.mark.parametrize(
    ("name", "value"), [("name", "monitors"), ("host", "a"), ("creds", "f"), ("identity", "shared"), ("when_away", "closed")]
)
def test_what_is_said_of_a_fleet_without_its_servers_is_a_mistake(tmp_path: Path, name: str, value: str) -> None:
    words = "only with cluster, the NATS servers of the fleet, nats://A,B,C"
    key, empty = f"cluster_{name}", written(tmp_path, "")
    assert str(complaint(lambda: load({key: value}, {}, empty))) == f"--cluster-{name.replace('_', '-')}: {words}"
    variable = f"RLPX_ENGINE_CLUSTER_{name.upper()}"
    assert str(complaint(lambda: load({}, {variable: value}, empty))) == f"{variable}: {words}"
    file = written(tmp_path, f"{key} = '{value}'\ncluster = ''")
    assert str(complaint(lambda: load({}, {}, file))) == f"{file}: {key}: {words}"
    # A flag or variable takes a host out of the fleet that its file is for.
    assert not load({"cluster": ""}, {}, file).settings.cluster
    assert not load({}, {"RLPX_ENGINE_CLUSTER": ""}, file).settings.cluster
    assert load({"cluster": "nats://a"}, {}, file).settings.cluster == "nats://a"


def test_the_default_of_a_fleet_may_stand_in_a_file_and_not_in_a_flag(tmp_path: Path) -> None:
    file = written(tmp_path, "cluster = ''\ncluster_name = 'rlpx'")
    assert load({}, {}, file).settings.cluster_name == "rlpx"
    assert str(complaint(lambda: load({"cluster_name": "rlpx"}, {}, file))).startswith("--cluster-name: only with cluster")


def test_ports_of_workers_may_end_with_the_last(tmp_path: Path) -> None:
    file = written(tmp_path, "workers = 3\n[data]\nendpoint = 'tcp://127.0.0.1:65533'")
    assert load({}, {}, file).settings.data.endpoint == "tcp://127.0.0.1:65533"
