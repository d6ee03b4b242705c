"""Every setting: its type, bounds, default, unit and reason. `conf/engine.toml`, the flags and `--help` are made from this.

Sections for workers and sessions are declared in `protocol/settings.py`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, field

from rlpx.protocol.bus.values import EnodeUrl, Level, SubProtocolText
from rlpx.protocol.cluster.records import NAME_PATTERN
from rlpx.protocol.eth import eth, snap
from rlpx.protocol.settings import (
    Bytes,
    ConductSettings,
    Connections,
    Count,
    EventSettings,
    FeedSettings,
    QueueSettings,
    ResponderSettings,
    Section,
    TcpEndpoint,
    TimeoutSettings,
)

CapabilityName = Annotated[
    str, Meta(pattern="^[a-z][a-z0-9]{0,7}$", title="a name of up to 8 lower-case letters and digits", examples=["wit"])
]
# `meaning.py` checks what these types cannot express.
ListenAddress = Annotated[
    str,
    Meta(title="HOST:PORT, where HOST is a name, an address, an [IPv6 address] or empty", examples=["0.0.0.0:30303"]),
]
ServerName = Annotated[str, Meta(title="a host name", examples=["node-1.example.org"])]
IpAddress = Annotated[str, Meta(title="an IP address that peers can dial", examples=["203.0.113.7"])]
Network = Annotated[str, Meta(title="a network, ADDRESS/BITS", examples=["10.0.0.0/8"])]

NatsServers = Annotated[
    str,
    Meta(
        pattern=r"^((nats|tls)://[^\s,]+(,\s*((nats|tls)://)?[^\s,]+)*)?$",
        title="nats://HOST[:PORT], several separated by commas",
        examples=["nats://10.0.0.1,10.0.0.2,10.0.0.3"],
    ),
]
ClusterName = Annotated[str, Meta(pattern=NAME_PATTERN, title="up to 64 letters, digits, - and _", examples=["monitors"])]
HostName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_-]{0,64}$", title="up to 64 letters, digits, - and _", examples=["host-1"])
]


class ProtocolSettings(Section, frozen=True):
    """The capabilities that our Hello offers."""

    client: Annotated[
        str,
        Meta(
            min_length=1, max_length=128, description="Client name in our Hello. {version} stands for the engine's version."
        ),
    ] = "rlpx-engine/{version}"
    eth: Annotated[
        tuple[Annotated[int, Meta(ge=eth.VERSIONS[0], le=eth.VERSIONS[-1])], ...],
        Meta(min_length=1, description="Versions of eth. The highest one shared with a peer is used."),
    ] = eth.VERSIONS
    snap: Annotated[
        tuple[Annotated[int, Meta(ge=snap.VERSIONS[0], le=snap.VERSIONS[-1])], ...],
        Meta(description="Versions of snap. None by default, because the engine has no state to serve."),
    ] = ()
    extra: Annotated[
        tuple[SubProtocolText, ...],
        Meta(description="Your own sub-protocols, NAME/VERSION/MESSAGES[/MAX_BYTES]. Their topics are NAME.0, NAME.1 ..."),
    ] = ()
    required: Annotated[
        tuple[CapabilityName, ...],
        Meta(description="Capabilities that a peer must share. Other peers are disconnected with 'useless peer'."),
    ] = ()


class LimitSettings(Section, frozen=True):
    """Exact limits on simultaneous sessions, over all workers. A session is pending until the eth Status."""

    is_live: ClassVar[bool] = True

    max_unauthenticated: Annotated[
        Count,
        Meta(description="Accepted connections without auth. Beyond it, the one that sent least for longest is closed."),
    ] = 1000
    max_pending_inbound: Annotated[
        Count, Meta(description="Accepted connections after auth. Beyond it, one without progress for 1 s is closed.")
    ] = 200
    max_pending_outbound: Annotated[Count, Meta(description="Dials in progress.")] = 100
    max_active_inbound: Annotated[Count, Meta(description="Active sessions that peers opened.")] = 2000
    max_active_outbound: Annotated[Count, Meta(description="Active sessions that we dialled.")] = 500
    max_polite_refusals: Annotated[
        Count,
        Meta(description="Refused connections that get 'too many peers' at the same time. Further ones are just closed."),
    ] = 15


class ThrottleSettings(Section, frozen=True):
    """Limits for one address or network. Addresses in `exempt_cidrs` are exempt."""

    is_live: ClassVar[bool] = True

    per_ip_live: Annotated[Count, Meta(description="Inbound sessions of one IP address at the same time.")] = 8
    per_subnet_live: Annotated[
        Count, Meta(description="Inbound sessions of one /24 (IPv4) or /64 (IPv6) at the same time.")
    ] = 32
    per_ipv4_16_live: Annotated[Count, Meta(description="Inbound sessions of one IPv4 /16 at the same time.")] = 256
    per_ipv6_56_live: Annotated[
        Count, Meta(description="Inbound sessions of one IPv6 /56, a household's network, at the same time.")
    ] = 64
    per_ipv6_48_live: Annotated[
        Count, Meta(description="Inbound sessions of one IPv6 /48, a site's network, at the same time.")
    ] = 128
    per_ip_interval_s: Annotated[
        float, Meta(ge=0, le=86_400, description="Seconds between two connections from one IP address, as in geth and reth.")
    ] = 30.0
    exempt_cidrs: Annotated[
        tuple[Network, ...], Meta(description="Networks exempt from these limits: loopback, link-local and private ones.")
    ] = (
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
    """Which addresses may connect and be dialled at all."""

    is_live: ClassVar[bool] = True

    allow_cidrs: Annotated[tuple[Network, ...], Meta(description="If not empty, only these networks are allowed.")] = ()
    deny_cidrs: Annotated[
        tuple[Network, ...], Meta(description="These networks are refused, even if they are in allow_cidrs.")
    ] = ()


class PeerSettings(Section, frozen=True):
    """Peers given as enode URLs or enr: records. Several addresses of one peer are tried in turn."""

    static: Annotated[
        tuple[EnodeUrl, ...],
        Meta(description="Peers to stay connected to: redialled 30 s after a session ends, later and later if that fails."),
    ] = ()
    trusted: Annotated[
        tuple[EnodeUrl, ...], Meta(description="Peers exempt from max_active_inbound and max_active_outbound.")
    ] = ()


class ControlSettings(Section, frozen=True):
    """Endpoints and limits for commands."""

    endpoint: Annotated[
        TcpEndpoint,
        Meta(description="Additional endpoint for commands, tcp://HOST:PORT, with the keys of [curve]. Empty: none."),
    ] = ""
    max_request_bytes: Annotated[
        Bytes, Meta(description="Largest size of one request in bytes. A larger one closes its connection.")
    ] = 32 * 1024 * 1024
    history: Annotated[Count, Meta(description="Number of ended sessions and attempts that `history` can show.")] = 1000
    max_connections: Annotated[Connections, Meta(description="Most programs connected at the same time.")] = 256


class DataSettings(Section, frozen=True):
    """The workers' endpoints for feeds, responders and commands, besides `worker-<i>.ipc` in the run directory."""

    endpoint: Annotated[
        TcpEndpoint,
        Meta(description="tcp://HOST:PORT for worker 0, PORT + i for worker i, with the keys of [curve]. Empty: none."),
    ] = ""


class CurveSettings(Section, frozen=True):
    """Access to the TCP endpoints, for users whose keys were made by `rlpx-ctl keys`."""

    keys_dir: Annotated[str, Meta(description="Folder of the keys. Empty: `keys` in the state directory.")] = ""
    insecure: Annotated[
        bool,
        Meta(description="TCP endpoints without keys, on loopback only. Every user of this machine can then use them."),
    ] = False


class LogSettings(Section, frozen=True):
    """The log, which goes to stderr or to a file."""

    is_live: ClassVar[bool] = True

    level: Annotated[Level, Meta(description="Lowest level that is written.")] = "info"
    format: Annotated[
        Literal["auto", "console", "json"], Meta(description="auto: readable text on a terminal, JSON lines elsewhere.")
    ] = "auto"
    summary: Annotated[bool, Meta(description="One line a minute: sessions, handshakes, ends, messages, lag.")] = True
    file: Annotated[
        str, Meta(description="File for the log instead of stderr. SIGUSR1 opens it by its name again. Empty: stderr.")
    ] = ""
    max_bytes: Annotated[
        int,
        Meta(ge=64 * 1024, le=1 << 40, description="Bytes at which the file is moved aside, to FILE.1, and begun anew."),
    ] = 64 * 1024 * 1024
    keep: Annotated[
        int, Meta(ge=0, le=1000, description="Number of files moved aside that are kept. The oldest one is removed.")
    ] = 5


class Settings(Section, frozen=True):
    """All settings."""

    workers: Annotated[
        int, Meta(ge=1, le=128, description="Number of worker processes. One per core can hold the most sessions.")
    ] = 2
    listen: Annotated[
        ListenAddress,
        Meta(
            description="HOST:PORT that peers connect to. No host: all addresses. Port 0: a free port. Empty: do not listen."
        ),
    ] = "0.0.0.0:30303"
    external_ip: Annotated[
        IpAddress,
        Meta(description="Address in our enode. Empty: the one we listen on, or for 0.0.0.0 a guess from the interfaces."),
    ] = ""
    chain: Annotated[str, Meta(description="Chain: mainnet, sepolia, hoodi or dev, or the path of a chain file.")] = (
        "mainnet"
    )
    node_key: Annotated[
        str,
        Meta(description="File of the node key, 64 hex digits, mode 0600, made if missing. Empty: in the state directory."),
    ] = ""
    run_dir: Annotated[
        str,
        Meta(description="Directory of the sockets. Empty: $XDG_RUNTIME_DIR/rlpx-engine, else ~/.local/state/rlpx-engine."),
    ] = ""
    cluster: Annotated[
        NatsServers,
        Meta(description="NATS servers of the fleet that this host is part of, nats://A,B,C or tls://A,B,C. Empty: none."),
    ] = ""
    cluster_name: Annotated[
        ClusterName, Meta(description="Name of the fleet on those servers. Hosts with the same name are one fleet.")
    ] = "rlpx"
    cluster_creds: Annotated[str, Meta(description="File with NATS credentials (.creds). Empty: none.")] = ""
    cluster_host: Annotated[
        HostName, Meta(description="Name of this host in the fleet, which no other has. Empty: the machine's name.")
    ] = ""
    cluster_identity: Annotated[
        Literal["own", "shared"],
        Meta(description="own: each host has a node key of its own. shared: all hosts have the same key file."),
    ] = "own"
    cluster_when_away: Annotated[
        Literal["open", "closed"],
        Meta(description="If NATS does not answer: open lets peers in and settles later, closed refuses them."),
    ] = "open"
    watch: Annotated[
        ListenAddress,
        Meta(
            description="HOST:PORT where rlpx-watch serves /metrics, /healthz, /readyz and a page. Empty: it is not started."
        ),
    ] = ""
    watch_control: Annotated[
        bool, Meta(description="Let that page disconnect, ban and set limits, with the token in watch.token in run_dir.")
    ] = False
    watch_host_names: Annotated[
        tuple[ServerName, ...], Meta(description="Names by which clients reach rlpx-watch, besides localhost and addresses.")
    ] = ()
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
    data: DataSettings = field(default_factory=DataSettings)
    curve: CurveSettings = field(default_factory=CurveSettings)
    responders: ResponderSettings = field(default_factory=ResponderSettings)
    feeds: FeedSettings = field(default_factory=FeedSettings)
    log: LogSettings = field(default_factory=LogSettings)
