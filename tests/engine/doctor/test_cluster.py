"""What the doctor says of the NATS servers of a fleet: as real servers answer, and of answers that no server here gives."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from nats.js.api import StreamConfig

from rlpx.engine.doctor import cluster
from rlpx.engine.doctor.cluster import Account, Server
from rlpx.engine.doctor.finding import Finding, State
from rlpx.engine.settings.settings import Settings
from tests.system.cluster_fleet import Nats, free_ports, member
from tests.system.harness import IMPORT_PATH

# A user who may hear everything, and write only to the store of another fleet.
STRANGER = """
authorization { users: [ { user: "stranger", password: "secret", permissions: {
    publish: ["$JS.API.>", "$KV.other.>", "_INBOX.>"], subscribe: ["_INBOX.>", "$SRV.>"] } } ] }
"""
# An account without JetStream.
BARE = 'accounts { bare: { users: [ { user: "bare", password: "secret" } ] } }'


def examined(servers: str, creds: str = "") -> dict[str, Finding]:
    """All findings about these servers by their checks."""
    given = Settings(cluster=servers, cluster_name="test", cluster_host="a", cluster_creds=creds)
    return {finding.check: finding for finding in cluster.examine(given)}


def states(findings: dict[str, Finding]) -> dict[str, str]:
    return {check.removeprefix("cluster."): finding.state.value for check, finding in findings.items()}


def test_three_servers_are_well_before_and_after_a_host_has_joined() -> None:
    with Nats(3) as nats:
        with member(nats, "a"):
            found = examined(nats.url)
        well = dict.fromkeys(("servers", "version", "max_payload", "jetstream", "rights", "bucket"), "ok")
        assert (states(found), found["cluster.bucket"].found) == (well, "test is on 3 of 3 servers")


def test_one_server_serves_and_may_not_fail() -> None:
    with Nats() as nats:
        found = examined(nats.url)
    assert found["cluster.servers"].state is State.WARN
    assert found["cluster.servers"].advice.startswith("use 3 servers")
    assert found["cluster.bucket"].found == "test is not there yet: the first host makes it"


def test_a_server_that_does_not_answer_is_named_and_no_server_at_all_is_a_failure() -> None:
    (port,) = free_ports(1)
    with Nats() as nats:
        found = examined(f"{nats.url},nats://user:secret@127.0.0.1:{port}")
    assert (found["cluster.servers"].state, found["cluster.jetstream"].state) == (State.WARN, State.OK)
    assert f"nats://127.0.0.1:{port}: " in found["cluster.servers"].found
    assert "secret" not in found["cluster.servers"].found
    none = examined(f"nats://127.0.0.1:{port}")
    assert states(none) == {"servers": "fail"}


def test_a_user_that_the_servers_do_not_let_in_or_do_not_let_write_is_told() -> None:
    with Nats(settings=STRANGER) as nats:
        refused = examined(nats.url)
        limited = examined(nats.url.replace("//", "//stranger:secret@"))
    assert refused["cluster.servers"].state is State.FAIL
    assert "authorization" in refused["cluster.servers"].found.lower()
    rights = limited["cluster.rights"]
    assert rights.state is State.FAIL
    for subject in ("$KV.test.host.a", "rlpx.test.a.doctor", "$JS.FC.KV_test.doctor.a", "rlpx.test.a.command"):
        assert subject.lower() in rights.found.lower()
    assert "$JS.FC.>" in rights.advice


def test_an_account_without_jetstream_is_told() -> None:
    with Nats(settings=BARE) as nats:
        found = examined(nats.url.replace("//", "//bare:secret@"))
    assert (found["cluster.jetstream"].state, "cluster.bucket" in found) == (State.FAIL, False)


@pytest.mark.parametrize("ends", [True, False])
def test_a_server_that_ends_or_falls_silent_while_it_is_asked_is_told(*, ends: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b'INFO {"version":"2.11.0","max_payload":1048576,"headers":true}\r\n')
                heard = b""
                while b"PING\r\n" not in heard:
                    heard += connection.recv(65536)
                connection.sendall(b"PONG\r\n")
                while connection.recv(65536) and not ends:
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        found = examined(f"nats://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert (found["cluster.jetstream"].state, found["cluster.rights"].state) == (State.FAIL, State.FAIL)


def test_credentials_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    found = examined("nats://127.0.0.1:1", str(tmp_path / "nowhere.creds"))
    assert states(found) == {"creds": "fail"}


def test_an_old_server_and_one_that_takes_short_messages_only() -> None:
    old = [
        Server("nats://a", version=(2, 12, 1), max_payload=8 << 20),
        Server("nats://b", version=(2, 10, 9), max_payload=1),
    ]
    assert (cluster.version(old).state, cluster.version(old).found) == (State.FAIL, "2.10.9")
    assert cluster.version(old[:1]).state is State.OK
    assert (cluster.payload(old).state, cluster.payload(old[:1]).state) == (State.WARN, State.OK)


@pytest.mark.parametrize(
    ("config", "state"),
    [
        (StreamConfig(allow_msg_ttl=True, allow_direct=True, num_replicas=3), State.OK),
        (StreamConfig(allow_msg_ttl=True, allow_direct=True, num_replicas=1), State.WARN),
        (StreamConfig(allow_msg_ttl=True, allow_direct=False, num_replicas=3), State.WARN),
        (StreamConfig(allow_msg_ttl=False, allow_direct=True, num_replicas=3), State.FAIL),
    ],
)
def test_a_bucket_that_somebody_else_has_made(config: StreamConfig, state: State) -> None:
    assert cluster.bucket(config, "test", 3).state is state
    assert [finding.state for finding in cluster.account(Account("", (), config), "test", 3)] == [State.OK, State.OK, state]


def test_the_command_asks_the_servers_that_the_settings_name(tmp_path: Path) -> None:
    with Nats() as nats:
        command = [
            sys.executable,
            "-P",
            "-m",
            "rlpx.engine",
            "doctor",
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--workers",
            "1",
        ]
        done = subprocess.run(
            [*command, "--cluster", nats.url],
            env={"PYTHONPATH": IMPORT_PATH, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/nobody"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    found = {finding["check"]: finding["state"] for finding in json.loads(done.stdout)["findings"]}
    assert (found["cluster.version"], found["cluster.rights"], found["cluster.servers"]) == ("ok", "ok", "warn")
