"""The part of the settings that a worker gets when it starts."""

from __future__ import annotations

from rlpx.engine.settings.identity import Identity
from rlpx.engine.settings.settings import Settings
from rlpx.protocol.bus.records import NodeConfig
from rlpx.protocol.settings import WorkerSettings


def node_config(settings: Settings, identity: Identity, listen_port: int) -> NodeConfig:
    """The identity that a worker announces in every Hello."""
    return NodeConfig(
        key=identity.key.secret,
        client=settings.protocols.client.replace("{version}", identity.version),
        listen_port=listen_port,
    )


def worker_settings(settings: Settings) -> WorkerSettings:
    """The sections that the worker and its sessions obey."""
    return WorkerSettings(
        timeouts=settings.timeouts,
        conduct=settings.conduct,
        queues=settings.queues,
        events=settings.events,
        responders=settings.responders,
        feeds=settings.feeds,
    )
