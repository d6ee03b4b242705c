"""The configuration that a worker gets at its start follows the settings."""

from __future__ import annotations

from rlpx.engine.fleet.worker_config import node_config, worker_settings
from rlpx.engine.settings.chain import load_chain
from rlpx.engine.settings.identity import Identity
from rlpx.engine.settings.settings import Settings
from rlpx.protocol.rlpx.crypto import PrivateKey
from rlpx.protocol.settings import (
    ConductSettings,
    EventSettings,
    QueueSettings,
    ResponderSettings,
    TimeoutSettings,
    WorkerSettings,
)

IDENTITY = Identity(PrivateKey(b"\x11" * 32), load_chain("dev"), "9.9")


def test_the_client_name_has_our_version() -> None:
    node = node_config(Settings(), IDENTITY, 30304)
    assert (node.client, node.listen_port, node.key) == ("rlpx-engine/9.9", 30304, b"\x11" * 32)


def test_a_worker_obeys_the_sections_of_the_settings() -> None:
    sections = {
        "timeouts": TimeoutSettings(ping_s=7.5),
        "conduct": ConductSettings(max_bad_messages=7),
        "queues": QueueSettings(goodbyes=7),
        "events": EventSettings(batch_ms=7),
        "responders": ResponderSettings(answer_s=7),
    }
    assert worker_settings(Settings(**sections)) == WorkerSettings(**sections)  # type: ignore[arg-type]
