"""Many hosts act as one: real engines and real NATS servers on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from time import sleep
from typing import Any

import nats as nats_client
import pytest
from nats.aio.msg import Msg

from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.system.cluster_fleet import Lives, Nats, Proxy, crowd, fleet, member
from tests.system.harness import IMPORT_PATH, ROOT, RunningEngine, eventually


def active(engines: list[RunningEngine]) -> int:
    """The active sessions of all."""
    return sum(sum(engine.counts()[2:]) for engine in engines)


def test_a_limit_holds_in_sum_and_is_used_in_full() -> None:
    limits = ("--limits.max-active-inbound", "20", "--limits.max-pending-inbound", "100")
    with Nats() as nats, fleet(nats, "a", "b", "c", flags=limits) as engines, crowd() as peers:
        for number in range(60):
            peers.connect(engines[number % 3])
        eventually(lambda: active(engines) == 20 and sum(engine.counts()[0] for engine in engines) == 0, "20 sessions")
        # One host alone wants every place that another gives up.
        for peer in [peer for peer in peers.peers if peer.session.stage == "active"][:5]:
            peers.leave(peer)
        eventually(lambda: active(engines) == 15, "five have left")

        def fills() -> bool:
            assert active(engines) <= 20
            peers.connect(engines[0])
            return active(engines) == 20

        eventually(fills, "host a has the places that came free anywhere")


@pytest.mark.long
def test_two_thousand_at_once_against_a_limit_of_five_hundred() -> None:
    limits = ("--limits.max-active-inbound", "500", "--limits.max-pending-inbound", "1000")
    flags = (*limits, "--limits.max-unauthenticated", "2000", "--limits.max-polite-refusals", "100")
    with Nats(3) as nats, fleet(nats, "a", "b", "c", flags=flags, workers=2) as engines, crowd() as peers:
        for number in range(2000):
            peers.connect(engines[number % 3])
        eventually(
            lambda: sum(engine.counts()[0] for engine in engines) == 0 and active(engines) == 500, "500 sessions", 120.0
        )
        eventually(lambda: len(Lives(nats).of("established")) >= 500, "the stream has them")
        lives = Lives(nats)
        assert lives.most_active("inbound") == 500


def test_a_peer_has_one_session_in_the_fleet_and_another_after_it() -> None:
    with Nats() as nats, fleet(nats, "a", "b", "c") as engines, crowd() as peers:
        key = PrivateKey(b"\x07" * 32)
        for engine in engines:
            peers.connect(engine, key)
        eventually(lambda: sum(engine.counts()[0] for engine in engines) == 0 and active(engines) == 1, "one session")
        (first,) = [peer for peer in peers.peers if peer.session.stage == "active"]
        peers.leave(first)
        eventually(lambda: active(engines) == 0, "it has left")

        def is_back() -> bool:
            # Its claim is erased a moment after its session has ended.
            if all(peer.session.is_closed for peer in peers.peers):
                peers.connect(engines[2], key)
            return active(engines) == 1

        eventually(is_back, "it is back")


@pytest.mark.alone
def test_what_a_killed_host_held_is_free_within_20_seconds() -> None:
    limits = ("--limits.max-active-inbound", "6")
    with Nats() as nats, member(nats, "a", *limits) as survivor, crowd() as peers:
        victim = member(nats, "b", *limits)
        keys = [PrivateKey(bytes([number]) * 32) for number in range(1, 7)]
        try:
            for key in keys:
                peers.connect(victim, key)
            eventually(lambda: victim.counts()[2] == 6, "all places are taken")
        finally:
            victim.process.kill()
            victim.__exit__(None, None, None)

        def taken() -> bool:
            for key in keys:
                if not any(peer.node_id == key.id and not peer.session.is_closed for peer in peers.peers):
                    peers.connect(survivor, key)
            return survivor.counts()[2] == 6

        eventually(taken, "another host has its peers and its places", 20.0)
        there = {("a", session["session"]) for session in survivor.call("sessions", phase="active")["sessions"]}
        eventually(lambda: Lives(nats).alive() == there, "the stream says so as well")
        lives = Lives(nats)
        assert [event["host"] for event in lives.events if event["topic"] == "engine.lost"] == ["b"]
        assert lives.names("closed") == []


def test_the_stream_tells_a_host_that_has_left_in_good_order_from_one_that_is_lost() -> None:
    with Nats() as nats, crowd() as peers:
        with fleet(nats, "a") as (engine,):
            peers.connect(engine)
            eventually(lambda: engine.counts()[2] == 1, "a session")
            run = engine.call("snapshot")["run"]
        events = Lives(nats).events
        assert [event["topic"] for event in events if event["topic"].startswith(("engine.", "session.closed"))] == [
            "engine.started",
            "session.closed",
            "engine.stopped",
        ]
        assert (events[-1]["topic"], events[-1]["host"], events[-1]["run"]) == ("engine.stopped", "a", run)
        assert Lives(nats).alive() == set()


@pytest.mark.long
def test_a_stopped_host_finds_that_it_was_given_up_before_it_admits_anyone() -> None:
    limits = ("--limits.max-active-inbound", "4")
    with Nats() as nats, fleet(nats, "a", "b", flags=limits) as (stopped, other), crowd() as peers:
        for _ in range(4):
            peers.connect(stopped)
        eventually(lambda: stopped.counts()[2] == 4, "host a has all places")
        os.kill(stopped.process.pid, signal.SIGSTOP)
        try:

            def taken() -> bool:
                peers.connect(other)
                return other.counts()[2] == 4

            eventually(taken, "host b has taken them")
        finally:
            os.kill(stopped.process.pid, signal.SIGCONT)
        eventually(lambda: stopped.counts()[2] == 0, "host a has ended what has no place")
        assert other.counts()[2] == 4
        there = {("b", session["session"]) for session in other.call("sessions", phase="active")["sessions"]}
        eventually(lambda: Lives(nats).alive() == there, "the stream says who is there")
        told = [(event["topic"], event["host"]) for event in Lives(nats).events if event["topic"].startswith("engine.")]
        assert told == [("engine.started", "a"), ("engine.started", "b"), ("engine.lost", "a"), ("engine.back", "a")]


@pytest.mark.long
def test_a_host_that_is_cut_off_keeps_its_sessions_until_it_is_back_and_then_those_that_have_a_place() -> None:
    limits = ("--limits.max-active-inbound", "6")
    with Nats() as nats, Proxy(nats.ports[0]) as proxy, member(nats, "a", *limits) as first, crowd() as peers:
        flags = ("--cluster", proxy.url, "--cluster-name", "test", "--cluster-host", "b", *limits)
        with RunningEngine(*flags, workers=1, is_read=False) as second:
            for _ in range(3):
                peers.connect(second)
            eventually(lambda: second.counts()[2] == 3, "three sessions at host b")
            proxy.cut()

            def taken(count: int) -> bool:
                assert second.counts()[2] >= 3
                if first.counts()[2] < count:
                    peers.connect(first)
                return first.counts()[2] == count

            eventually(lambda: taken(3), "host a has the free places at once")
            # Those of host b are taken too, when it has been silent for as long as hosts are believed to live.
            eventually(lambda: taken(6), "host a has all places")
            assert second.counts()[2] == 3
            proxy.heal()
            eventually(lambda: second.counts()[2] == 0, "host b has ended the sessions that have no place")
            assert first.counts()[2] == 6
            eventually(lambda: len(Lives(nats).of("closed")) >= 3, "their ends are in the stream")
            lives = Lives(nats)
            assert len(lives.events) == len({event["id"] for event in lives.events})


@pytest.mark.parametrize(
    ("host", "chain", "problem"),
    [
        ("a", "dev", "cluster_host: the fleet has a host named a already"),
        ("b", "hoodi", "cluster_name: host a is on network "),
    ],
)
def test_a_name_is_one_hosts_and_a_fleet_has_one_chain(host: str, chain: str, problem: str) -> None:
    with Nats() as nats, member(nats, "a"):
        command = [sys.executable, "-P", "-m", "rlpx.engine", "--chain", chain, "--listen", "127.0.0.1:0"]
        command += ["--conf", str(ROOT / "conf" / "engine.toml"), "--run-dir", str(nats.folder / "run"), "--node-key"]
        command += [str(nats.folder / "key"), "--cluster", nats.url, "--cluster-name", "test", "--cluster-host", host]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": IMPORT_PATH}, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 78
        assert done.stderr.splitlines()[-1].startswith(f"rlpx-engine: {problem}")


def test_without_the_setting_nothing_of_it_is_imported() -> None:
    loads = "import sys, rlpx.engine.__main__, rlpx.engine.engine"
    code = f"{loads}; print([name for name in sys.modules if 'nats' in name or 'cluster' in name])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "['rlpx.protocol.cluster', 'rlpx.protocol.cluster.records']\n"


def ctl(nats: Nats, *arguments: str) -> tuple[int, str]:
    """`rlpx-ctl` to the fleet: its exit code and what it writes."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "rlpx.engine.cli.ctl",
        "--cluster",
        nats.url,
        "--cluster-name",
        "test",
        *arguments,
    ]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": IMPORT_PATH}, capture_output=True, text=True, timeout=200, check=False
    )
    return done.returncode, done.stdout + done.stderr


def ctl_json(nats: Nats, *arguments: str) -> Any:
    code, text = ctl(nats, "--json", *arguments)
    assert code == 0, text
    return json.loads(text)


def test_commands_go_to_the_host_that_has_it_or_to_all() -> None:
    with Nats() as nats, fleet(nats, "a", "b") as (first, second), crowd() as peers:
        peers.connect(second)
        eventually(lambda: second.counts()[2] == 1, "a session at host b")
        hosts = ctl_json(nats, "hosts")
        assert [(row["host"], row["answers"], row["inbound"]) for row in hosts] == [("a", True, 0), ("b", True, 1)]
        assert (hosts[1]["leased"]["inbound"] >= 1, hosts[1]["unsettled"]) == (True, 0)
        counted = ctl_json(nats, "counts")
        assert counted["sum"]["active"] == {"inbound": 1, "outbound": 0}
        assert counted["sum"]["limits"] == {"max_active_inbound": 2000, "max_active_outbound": 500}
        shown = ctl(nats, "counts")[1].splitlines()
        assert (shown[0], shown[4].split(), shown[5]) == (
            "the fleet",
            ["active", "1", "of", "2000", "0", "of", "500"],
            "host a",
        )
        session = second.call("sessions")["sessions"][0]["session"]
        assert list(ctl_json(nats, "session", str(session))["hosts"]) == ["b"]
        assert ctl(nats, "session", "99") == (1, "rlpx-ctl: no_such_session: no host has a session 99\n")
        assert ctl(nats, "--host", "z", "counts") == (1, "rlpx-ctl: invalid_params: there is no host z; there are a, b\n")
        assert ctl(nats, "shutdown") == (1, "rlpx-ctl: invalid_params: shutdown concerns one host: name it with --host\n")
        # What is the fleet's is told to one host, by whatever way, and done by all.
        head = "0x" + "ab" * 32
        first.call("set-status", number=7, hash=head)
        eventually(lambda: second.call("status")["head"]["number"] == 7, "host b announces the head")
        second.call("ban", address="192.0.2.1", seconds=1000)
        eventually(lambda: [ban["who"] for ban in first.call("peers")["bans"]] == ["192.0.2.1"], "host a bans as well")
        confirmed = ctl_json(nats, "set-status", "8", head)["hosts"]
        assert confirmed == {"a": {"confirmed": [0], "missing": []}, "b": {"confirmed": [0], "missing": []}}
        first.call("set-limits", max_active_inbound=1)
        eventually(lambda: second.call("counts")["limits"]["max_active_inbound"] == 1, "the limit is the fleet's")
        with member(nats, "c") as third:
            assert third.call("status")["head"]["number"] == 8
            assert third.call("counts")["limits"]["max_active_inbound"] == 1
            os.kill(third.process.pid, signal.SIGSTOP)
            try:
                code, text = ctl(nats, "--json", "log-level", "info")
            finally:
                os.kill(third.process.pid, signal.SIGCONT)
            assert code == 1
            assert json.loads(text)["no_answer"] == ["c"]
        assert ctl(nats, "disconnect", str(session)) == (0, "host b\nsessions  1\n")
        eventually(lambda: active([first, second]) == 0, "it has ended")


def test_a_static_peer_is_dialled_by_one_host() -> None:
    with Nats() as nats, fleet(nats, "a", "b") as engines, RunningEngine("--limits.max-active-inbound", "5") as target:
        engines[0].call("peers-add", enode=target.enode)
        eventually(lambda: all(len(engine.call("peers")["peers"]) == 1 for engine in engines), "both hosts know it")
        eventually(lambda: target.counts()[2] == 1, "one of them has dialled it")
        sleep(3.0)
        assert target.counts()[2] == 1
        assert len(target.call("history")) == 0


async def listened(nats: Nats, act: Callable[[], None]) -> tuple[list[dict[str, Any]], list[tuple[str, Any, bytes]]]:
    """Ask all hosts for transactions, act, and return what the hosts answer, and the batches that come."""
    client = await nats_client.connect(nats.url.split(","))
    batches: list[tuple[str, Any, bytes]] = []

    async def on_batch(message: Msg) -> None:
        head, _, body = message.data.partition(b"\n")
        batches.append((message.subject, json.loads(head), body))

    answers: list[dict[str, Any]] = []

    async def on_answer(message: Msg) -> None:
        answers.append(json.loads(message.data))

    try:
        await client.subscribe("rlpx.test.*.eth.>", cb=on_batch)
        inbox = client.new_inbox()
        await client.subscribe(inbox, cb=on_answer)
        await asyncio.to_thread(act)
        await asyncio.sleep(1.0)
        assert batches == []  # nobody has said that he listens
        await client.publish("rlpx.test.listen", b'{"topics":["eth.","eth.Transactions"],"seconds":3}', inbox)
        await client.publish("rlpx.test.a.listen", b'{"topics":["session.opened"]}', inbox)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(act)
        await asyncio.sleep(4.0)
        count = len(batches)
        await asyncio.to_thread(act)
        await asyncio.sleep(1.0)
        assert len(batches) == count  # the time is over
    finally:
        await client.close()
    return answers, batches


def test_traffic_is_on_core_subjects_only_while_somebody_listens() -> None:
    with Nats() as nats, fleet(nats, "a", "b") as (first, _), crowd() as peers:
        peer = peers.connect(first)
        eventually(lambda: first.counts()[2] == 1, "a session")
        payload = bytes.fromhex("c3820102")

        def act() -> None:
            peer.send(2, payload)

        answers, batches = asyncio.run(listened(nats, act))
        assert sorted(answer["host"] for answer in answers if "topics" in answer) == ["a", "b"]
        (refused,) = [answer for answer in answers if "error" in answer]
        assert refused["error"].startswith("session.opened is in the fleet's stream")
        ((subject, head, body),) = [batch for batch in batches if batch[1]["events"]]
        assert subject == "rlpx.test.a.eth.Transactions"
        assert head["events"][0]["size"] == len(payload)
        assert body == payload
