"""What a worker is told at its start is what the settings say."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.config import RunDir, load_chain
from engine.identity import Identity
from engine.settings import EventSettings, ResponderSettings, Settings, TimeoutSettings
from engine.worker_config import node_config, outbox_config, responder_config, session_config
from protocol.control import WorkerId
from protocol.crypto import PrivateKey

IDENTITY = Identity(PrivateKey(b"\x11" * 32), load_chain("dev"), "9.9")


def test_the_client_name_has_our_version() -> None:
    node = node_config(Settings(), IDENTITY, 30304)
    assert (node.client, node.listen_port, node.key) == ("rlpx-engine/9.9", 30304, b"\x11" * 32)


def test_milliseconds_of_the_settings_are_seconds_of_the_worker() -> None:
    outbox = outbox_config(Settings(events=EventSettings(batch_ms=5.0)), "ipc://traffic")
    assert (outbox.batch_seconds, outbox.endpoint) == (0.005, "ipc://traffic")


def test_each_worker_has_a_responder_endpoint_of_its_own(tmp_path: Path) -> None:
    settings = Settings(responders=ResponderSettings(answer_s=3.0, most_open=7))
    responder = responder_config(settings, RunDir(tmp_path), WorkerId(2))
    assert responder.endpoint == f"ipc://{tmp_path}/worker-2.ipc"
    assert (responder.seconds, responder.most_open) == (3.0, 7)


def test_every_bound_of_a_session_is_a_setting() -> None:
    default = session_config(Settings())
    timeouts = TimeoutSettings(**dict.fromkeys(TimeoutSettings.__struct_fields__, 7.5))
    changed = session_config(Settings(timeouts=timeouts))
    seconds = [name for name in default.__struct_fields__ if name.endswith("_seconds")]
    assert len(seconds) == len(TimeoutSettings.__struct_fields__)
    assert {getattr(changed, name) for name in seconds} == {7.5}
    kept = [name for name in default.__struct_fields__ if not name.endswith("_seconds")]
    assert msgspec.structs.asdict(default).keys() == {*seconds, *kept}
