"""What a worker is told when it starts, made of the settings and of what has changed since."""

from __future__ import annotations

from engine.config import RunDir
from engine.identity import Identity
from engine.settings import Settings
from protocol import control
from protocol.control import WorkerId


def node_config(settings: Settings, identity: Identity, listen_port: int) -> control.NodeConfig:
    """What it says of the node in every Hello."""
    return control.NodeConfig(
        key=identity.key.secret,
        client=settings.protocols.client.replace("{version}", identity.version),
        listen_port=listen_port,
    )


def session_config(settings: Settings) -> control.SessionConfig:
    """Bounds of its sessions."""
    timeouts, queues = settings.timeouts, settings.queues
    return control.SessionConfig(
        handshake_seconds=timeouts.handshake_s,
        pending_inbound_seconds=timeouts.pending_inbound_s,
        pending_outbound_seconds=timeouts.pending_outbound_s,
        connect_seconds=timeouts.connect_s,
        ping_interval_seconds=timeouts.ping_interval_s,
        ping_seconds=timeouts.ping_s,
        goodbye_seconds=timeouts.goodbye_s,
        max_goodbyes=queues.goodbyes,
        max_bad_messages=settings.conduct.max_bad_messages,
        ends_on_breach=settings.conduct.ends_on_breach,
        queue_bytes=queues.peer_write_bytes,
        write_seconds=timeouts.write_s,
    )


def outbox_config(settings: Settings, endpoint: str) -> control.OutboxConfig:
    """How its traffic events leave."""
    return control.OutboxConfig(
        endpoint=endpoint,
        batch_seconds=settings.events.batch_ms / 1000,
        batch_bytes=settings.events.batch_bytes,
        queue_batches=settings.events.queue_batches,
    )


def responder_config(settings: Settings, run_dir: RunDir, worker: WorkerId) -> control.ResponderConfig:
    """Where programs connect that answer peers' requests."""
    return control.ResponderConfig(
        endpoint=run_dir.endpoint(f"worker-{worker}"),
        seconds=settings.responders.answer_s,
        most_open=settings.responders.most_open,
    )
