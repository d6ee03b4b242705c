"""Every setting: its type, bounds, default, unit and reason. `conf/engine.toml`, the flags and `--help` are made of this."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec
from msgspec import Meta, field

from protocol import eth, snap

Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Milliseconds = Annotated[float, Meta(gt=0, le=60_000)]
Bytes = Annotated[int, Meta(ge=1024, le=1 << 32)]
Level = Literal["debug", "info", "warning", "error"]


# A capability's name has up to 8 ASCII letters and digits (rlpx.md); then its version, its number of message codes, and the
# most bytes that a message may inflate to.
SubProtocolText = Annotated[str, Meta(pattern="^[a-z][a-z0-9]{0,7}/[0-9]{1,3}/[0-9]{1,2}(/[0-9]{1,8})?$")]
CapabilityName = Annotated[str, Meta(pattern="^[a-z][a-z0-9]{0,7}$")]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the configuration file."""


class ProtocolSettings(Section, frozen=True):
    """What we offer in every Hello."""

    client: Annotated[
        str,
        Meta(min_length=1, max_length=128, description="Client name in our Hello; {version} is the engine's version."),
    ] = "rlpx-engine/{version}"
    eth: Annotated[
        tuple[Annotated[int, Meta(ge=eth.VERSIONS[0], le=eth.VERSIONS[-1])], ...],
        Meta(min_length=1, description="Versions of eth; the highest one that a peer shares is used."),
    ] = eth.VERSIONS
    snap: Annotated[
        tuple[Annotated[int, Meta(ge=snap.VERSIONS[0], le=snap.VERSIONS[-1])], ...],
        Meta(description="Versions of snap. None by default: we have no state to serve, and peers would ask."),
    ] = ()
    extra: Annotated[
        tuple[SubProtocolText, ...],
        Meta(description="Your own sub-protocols, NAME/VERSION/MESSAGES[/MAX_BYTES]; their topics are NAME.0, NAME.1, …"),
    ] = ()
    required: Annotated[
        tuple[CapabilityName, ...], Meta(description="Names that a peer must share; others are told 'useless peer'.")
    ] = ()


class LimitSettings(Section, frozen=True):
    """Sessions at a time over all workers, exact. Pending is before the eth Status, active after."""

    max_pending_inbound: Annotated[
        Count, Meta(description="At this many the listener pauses: the kernel's backlog is the queue.")
    ] = 200
    max_pending_outbound: Annotated[Count, Meta(description="Dials in progress.")] = 100
    max_active_inbound: Annotated[Count, Meta(description="Peers that connected to us.")] = 2000
    max_active_outbound: Annotated[Count, Meta(description="Peers that we dialled.")] = 500
    max_polite_refusals: Annotated[
        Count,
        Meta(description="Accepts over the limit that are told 'too many peers' at a time; others are just closed."),
    ] = 15


class ThrottleSettings(Section, frozen=True):
    """What one address may take. Addresses of `exempt_cidrs` are free of it."""

    per_ip_live: Annotated[Count, Meta(description="Inbound sessions of one IP at a time.")] = 8
    per_subnet_live: Annotated[Count, Meta(description="Inbound sessions of one /24 (IPv4) or /64 (IPv6) at a time.")] = 32
    per_ip_interval_s: Annotated[
        float, Meta(ge=0, le=86_400, description="Seconds between two accepts of one IP, as in geth and reth.")
    ] = 30.0
    exempt_cidrs: Annotated[tuple[str, ...], Meta(description="Loopback, link-local and private networks.")] = (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )


class AccessSettings(Section, frozen=True):
    """Who may connect and be dialled at all."""

    allow_cidrs: Annotated[tuple[str, ...], Meta(description="If not empty: only these networks.")] = ()
    deny_cidrs: Annotated[tuple[str, ...], Meta(description="Never these networks.")] = ()


class TimeoutSettings(Section, frozen=True):
    """How long a peer may take. Each ends the session with a reason."""

    handshake_s: Annotated[Seconds, Meta(description="Seconds for auth and ack, as in geth.")] = 5.0
    pending_inbound_s: Annotated[Seconds, Meta(description="Seconds from accept to active.")] = 10.0
    pending_outbound_s: Annotated[Seconds, Meta(description="Seconds from dial to active, TCP included, as in reth.")] = 20.0
    connect_s: Annotated[Seconds, Meta(description="Seconds for the TCP connect of a dial, as in geth.")] = 15.0
    ping_interval_s: Annotated[
        Seconds, Meta(description="Seconds between a pong and the next ping. geth closes after 30 s of silence.")
    ] = 15.0
    ping_s: Annotated[Seconds, Meta(description="Seconds for a pong, as in reth.")] = 15.0
    write_s: Annotated[Seconds, Meta(description="Seconds that a peer may leave what we wrote unread, as in geth.")] = 20.0
    goodbye_s: Annotated[Seconds, Meta(description="Seconds that an ended peer has to read our Disconnect (rlpx.md).")] = 2.0


class PeerSettings(Section, frozen=True):
    """Peers by name, as enode URLs."""

    static: Annotated[
        tuple[str, ...],
        Meta(description="Peers to keep connected: dialled, and again 30 s after an end, a bad one later."),
    ] = ()
    trusted: Annotated[
        tuple[str, ...], Meta(description="Peers that max_active_inbound and max_active_outbound do not stop.")
    ] = ()


class ConductSettings(Section, frozen=True):
    """What a peer may do before it is disconnected as in breach of the protocol."""

    max_bad_messages: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Unasked and mistaken responses in one session; reth bans at the 4th.")
    ] = 4
    ends_on_breach: Annotated[
        bool, Meta(description="Whether a peer that answers nothing for 120 s is disconnected, or only told of.")
    ] = True


class QueueSettings(Section, frozen=True):
    """Bounds of what waits, in bytes where it is bytes."""

    peer_write_bytes: Annotated[
        Bytes,
        Meta(description="Bytes of messages that wait for one peer, one large one excepted; over it: queue_full."),
    ] = 1024 * 1024
    goodbyes: Annotated[Count, Meta(description="Ended sockets per worker that wait for their peer to close.")] = 256
    broadcast_bytes: Annotated[
        Bytes, Meta(description="Bytes of one broadcast, its payload times its sessions; over it the answer is queue_full.")
    ] = 256 * 1024 * 1024
    worker_command_bytes: Annotated[
        Bytes, Meta(description="Bytes of commands waiting for one worker; over it `send` answers queue_full.")
    ] = 32 * 1024 * 1024


class EventSettings(Section, frozen=True):
    """How events leave."""

    batch_ms: Annotated[Milliseconds, Meta(description="Milliseconds that an event waits for company.")] = 2.0
    lifecycle_batch_ms: Annotated[
        Milliseconds, Meta(description="The same for sessions, peers and workers: these come one by one.")
    ] = 10.0
    batch_bytes: Annotated[Bytes, Meta(description="Bytes of payload that send a batch at once.")] = 128 * 1024
    queue_batches: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Batches that wait for one subscriber or the proxy; what is over is dropped and counted.",
        ),
    ] = 1000
    endpoint: Annotated[
        str, Meta(description="A second endpoint for subscribers, tcp://127.0.0.1:PORT; empty for none.")
    ] = ""


class ControlSettings(Section, frozen=True):
    """Where commands are taken."""

    endpoint: Annotated[str, Meta(description="A second endpoint for commands, tcp://127.0.0.1:PORT; empty for none.")] = ""
    max_request_bytes: Annotated[Bytes, Meta(description="Bytes of one request; longer ones close their sender.")] = (
        32 * 1024 * 1024
    )
    history: Annotated[Count, Meta(description="Ended sessions and attempts that are remembered.")] = 1000


class ResponderSettings(Section, frozen=True):
    """Programs that answer peers' requests, on `worker-<i>.ipc` in the run directory."""

    answer_s: Annotated[Seconds, Meta(description="Seconds for an answer; then the peer gets the empty one.")] = 5.0
    most_open: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Requests of one peer that wait for answers; more are left in its socket. reth's is 4.",
        ),
    ] = 4


class LogSettings(Section, frozen=True):
    """What goes to stderr."""

    level: Annotated[Level, Meta(description="Least level that is written.")] = "info"
    format: Annotated[
        Literal["auto", "console", "json"], Meta(description="auto: readable on a terminal, JSON lines elsewhere.")
    ] = "auto"


class Settings(Section, frozen=True):
    """All of it."""

    workers: Annotated[int, Meta(ge=1, le=128, description="Worker processes; one per core carries most.")] = 2
    listen: Annotated[
        str, Meta(description="HOST:PORT that peers connect to; port 0 takes a free one, empty listens nowhere.")
    ] = "0.0.0.0:30303"
    chain: Annotated[str, Meta(description="Name of a file in conf/ (mainnet, sepolia, hoodi, dev), or a file.")] = "mainnet"
    node_key: Annotated[
        str,
        Meta(description="File of the node key, 64 hex digits, mode 0600; made if missing. Empty: in the state directory."),
    ] = ""
    run_dir: Annotated[
        str,
        Meta(
            description="Directory of sockets and lock. Empty: $XDG_RUNTIME_DIR/rlpx-engine or ~/.local/state/rlpx-engine."
        ),
    ] = ""
    protocols: ProtocolSettings = field(default_factory=ProtocolSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    throttle: ThrottleSettings = field(default_factory=ThrottleSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    timeouts: TimeoutSettings = field(default_factory=TimeoutSettings)
    peers: PeerSettings = field(default_factory=PeerSettings)
    conduct: ConductSettings = field(default_factory=ConductSettings)
    queues: QueueSettings = field(default_factory=QueueSettings)
    events: EventSettings = field(default_factory=EventSettings)
    control: ControlSettings = field(default_factory=ControlSettings)
    responders: ResponderSettings = field(default_factory=ResponderSettings)
    log: LogSettings = field(default_factory=LogSettings)


class SettingField(msgspec.Struct, frozen=True):
    """One setting: `limits` and `max_active_inbound`, or no section; what it says, and its default."""

    section: str
    name: str
    description: str
    default: Any
    is_list: bool

    @property
    def key(self) -> str:
        """`limits.max_active_inbound`, as error messages and files name it."""
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def flag(self) -> str:
        """`--limits.max-active-inbound`."""
        return "--" + self.key.replace("_", "-")

    @property
    def variable(self) -> str:
        """`RLPX_ENGINE_LIMITS_MAX_ACTIVE_INBOUND`."""
        return "RLPX_ENGINE_" + self.key.replace(".", "_").upper()


def setting_fields() -> Iterator[SettingField]:
    """All settings, those without a section first."""
    yield from _fields_of("", Settings, Settings())
    for name, section in _sections():
        yield from _fields_of(name, type(section), section)


def as_toml() -> str:
    """The text of the default configuration file."""
    lines = ["# Every setting with its default. A flag beats an environment variable beats this file.", ""]
    lines += _toml_lines(_fields_of("", Settings, Settings()))
    for name, section in _sections():
        lines += ["", f"# {type(section).__doc__}", f"[{name}]", *_toml_lines(_fields_of(name, type(section), section))]
    return "\n".join(lines) + "\n"


_DEFAULTS: Final = Settings()


def _sections() -> Iterator[tuple[str, Section]]:
    for item in msgspec.structs.fields(Settings):
        value = getattr(_DEFAULTS, item.name)
        if isinstance(value, Section):
            yield item.name, value


def _fields_of(section: str, struct: type[Section], defaults: Section) -> Iterator[SettingField]:
    hints = get_type_hints(struct, include_extras=True)
    for item in msgspec.structs.fields(struct):
        value = getattr(defaults, item.name)
        if not isinstance(value, Section):
            # Nested annotations are one: the last Meta with words is the setting's own.
            metas = [meta for meta in getattr(hints[item.name], "__metadata__", ()) if isinstance(meta, Meta)]
            description = next((meta.description for meta in reversed(metas) if meta.description), "")
            yield SettingField(section, item.name, description, value, isinstance(value, tuple))


def _toml_lines(fields: Iterator[SettingField]) -> Iterator[str]:
    for item in fields:
        yield f"# {item.description}"
        yield f"{item.name} = {_toml_value(item.default)}"


def _toml_value(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
