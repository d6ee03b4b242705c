"""The seeds of fuzzing: well-formed inputs of each target, from our own encoders and from the published vectors."""

from __future__ import annotations

from typing import Any, Final

from rlpx.protocol import rlp
from rlpx.protocol.bus import control, zmtp
from rlpx.protocol.errors import DisconnectReason, ErrorName, UsageError
from rlpx.protocol.eth import eth, snap, snap_messages
from rlpx.protocol.eth import messages as eth_messages
from rlpx.protocol.eth.forkid import ForkId
from rlpx.protocol.eth.status import local_status
from rlpx.protocol.lifecycle import Stage
from rlpx.protocol.rlpx import p2p
from rlpx.protocol.rlpx.p2p import Hello
from tests.fuzz.targets import (
    OURS,
    RAW_STAGES,
    STAGES,
    THEIRS,
    TIME_PASSES,
    VERDICT_COMES,
)
from tests.pair import (
    CHAIN,
    DISCONNECT,
    ETH,
    HELLO,
    OFFER,
    PING,
    PONG,
    PROTOCOLS,
    WALL_SECONDS,
    RawPeer,
    handshake_packet,
    key,
    seeded,
)
from tests.protocol.bus.test_nats_wire import STREAM
from tests.protocol.eth.test_messages import SAMPLES as ETH_SAMPLES
from tests.protocol.eth.test_snap_messages import SAMPLES as SNAP_SAMPLES
from tests.vectors import load

RLP: Final = [
    b"\x05",
    b"\x83dog",
    b"\xc8\x83cat\x83dog",
    b"\xb8\x38" + bytes(56),
    b"\xf8\x38" + bytes(56),
    b"\xc1" * 16 + b"\xc0",
]
REQUEST_HEADERS: Final = rlp.encode([7, [1, 2, 0, 0]])


def seeds() -> dict[str, list[bytes]]:
    """The first inputs of each target."""
    packets = load("rlpx_eip8_handshake")["packets"]
    hellos, disconnects = hello_payloads(), disconnect_payloads()
    return {
        "rlp": RLP + [payload for _, payload in eth_payloads(69)],
        "rlp-first": [payload for _, payload in eth_payloads(69)],
        "ecies": [b"\x00\x00\x00", b"\x01\x00\x05text", b"\x02\x00\x41text"],
        "handshake": [
            b"\x00" + handshake_packet(RLP[2], key(8).point, seeded(8)),
            *(bytes([1 + (packet["kind"] == "ack")]) + bytes.fromhex(packet["plaintext_rlp"]) for packet in packets),
        ],
        "frames": [b"\x00\x00\x00\x00\x06\x03one\x03two", b"\x01\x00\x20\x00\xff\x20" + bytes(32) + b"\x03two"],
        "frame-noise": [bytes(31), bytes.fromhex(load("rlpx_frames")["official"][0]["frame"])],
        "hello": hellos,
        "disconnect": disconnects,
        "snappy": [size + p2p.deflate(bytes(100) + b"text") for size in (b"\x00\x10", b"\xff\xff")],
        "status": [bytes([index]) + status(version) for index, version in enumerate(eth.VERSIONS)],
        "forkid": fork_ids(),
        **{
            f"eth-{version}": [bytes([number]) + payload for number, payload in eth_payloads(version)]
            for version in eth.VERSIONS
        },
        **{
            f"snap-{version}": [bytes([number]) + payload for number, payload in snap_payloads(version)]
            for version in snap.VERSIONS
        },
        "control": [b"\x00\x14" + stream for stream in streams()],
        "zmtp": users(),
        "nats": [b"\x05" + STREAM.replace(b" 1 ", b" 0 "), b"\xffMSG a.b 0 2\r\n{}\r\n"],
        "call": calls(),
        "feed-head": feed_heads(),
        "feed-filter": [
            bytes((index, number)) + payload
            for index, version in enumerate(eth.VERSIONS)
            for number, payload in eth_payloads(version)
        ],
        "session-frames": conversations(),
        "session-bytes": raw_streams(),
    }


def calls() -> list[bytes]:
    """Requests for what programs ask most, with a frame and without."""
    start = b'{"jsonrpc":"2.0","id":7,"method":'
    return [
        b"\x01\x01\xc0" + start + b'"send","params":{"session":1,"capability":"eth","message":"Transactions","raw":true}}',
        b"\x00" + start + b'"request","params":{"session":1,"capability":"eth","message":3,"payload":"0xc0","timeout_s":5}}',
        b"\x01\x00" + start + b'"broadcast","params":{"capability":"wit","message":"5","shared":"eth/69","except":[1,2]}}',
        b"\x00" + start + b'"disconnect","params":{"session":1,"reason":"useless_peer"}}',
        b"\x00" + start + b'"ban","params":{"address":"192.0.2.1","seconds":1e3}}',
        b"\x00" + start + b'"status"}',
    ]


def feed_heads() -> list[bytes]:
    """What a program says of a feed."""
    where = b'{"session":[1,2],"peer":"ab","client":"Geth","shared":"eth/69","direction":"inbound","types":[3],"min_size":5}'
    return [
        b'{"feed":1,"topics":["session.","eth."],"where":%b,"credit":5,"lossless":true,"snapshot":true}' % where,
        b'{"feed":1,"credit":9007199254740991}',
        b'{"feed":9,"close":true}',
        b'{"token":5}',
    ]


def hello_payloads() -> list[bytes]:
    """A Hello of ours, and the one of EIP-8."""
    return [
        Hello("seed", OFFER, 30303, THEIRS.id).encode(),
        bytes.fromhex(load("p2p_hello_disconnect")["eip8_hello"]["payload_rlp"]),
    ]


def disconnect_payloads() -> list[bytes]:
    """A Disconnect of ours, and all forms that others accept."""
    accepted = [bytes.fromhex(case["payload"]) for case in load("p2p_hello_disconnect")["disconnect_payload_accept"]]
    return [p2p.deflate(p2p.encode_disconnect(DisconnectReason.TOO_MANY_PEERS)), *accepted]


def status(version: int) -> bytes:
    """A Status that passes all checks."""
    return local_status(version, CHAIN, WALL_SECONDS).encode()


def fork_ids() -> list[bytes]:
    """Two forks by block and one by time, heads around them, and fork ids of the vectors."""
    chain = b"\x02\x00\x05\x00\x09" + b"\x01\x00\x10" + b"\x00\x01\x00\x02" + b"\x00\x03\x00\x20" + b"\x00\x06"
    vectors = [bytes.fromhex(case["rlp"]) for case in load("forkid_encoding")["cases"]]
    return [chain + rlp.encode(ForkId(CHAIN.forks.at(0, 0).hash, 5).to_rlp()), *(chain + encoded for encoded in vectors)]


def eth_payloads(version: int) -> list[tuple[int, bytes]]:
    """Samples of every message, and go-ethereum's, by their ids."""
    vectors = load("eth_messages")["go_ethereum_TestMessages"]
    published = [(case["code"], bytes.fromhex(case["rlp"])) for case in vectors]
    return [(eth.STATUS_ID, status(version)), *published, *encoded(eth_messages, version, ETH_SAMPLES)]


def snap_payloads(version: int) -> list[tuple[int, bytes]]:
    """Samples of every message by their ids."""
    return encoded(snap_messages, version, SNAP_SAMPLES)


def encoded(language: Any, version: int, samples: Any) -> list[tuple[int, bytes]]:
    """Those samples that the version has in this form."""
    found = []
    for sample in samples:
        try:
            found.append((language.id_of(version, sample), language.encode(version, sample)))
        except UsageError:
            continue
    return found


def users() -> list[bytes]:
    """What a caller and a subscriber send after their greetings."""
    ready = [zmtp.command(b"READY", zmtp.metadata({"Socket-Type": name, "Identity": b""})) for name in (b"DEALER", b"SUB")]
    ping = zmtp.command(b"PING", b"\x00\x0acontext")
    return [
        b"\x01\x05" + ready[0] + zmtp.encode([b"", b"{}"]) + ping + zmtp.encode([bytes(280)]),
        b"\x00\x07"
        + ready[1]
        + zmtp.command(b"SUBSCRIBE", b"eth.")
        + zmtp.encode([b"\x01snap."])
        + zmtp.encode([b"\x00eth."]),
        b"\x00\x01" + ready[1] + zmtp.encode([b"x", b"y"]) + zmtp.command(b"CANCEL", b"eth."),
    ]


def streams() -> list[bytes]:
    """Commands and reports as processes exchange them."""
    call, session = control.CallId(1), control.SessionId(2)
    commands: list[Any] = [
        control.Dial(session, THEIRS.id, (("127.0.0.1", 30303),)),
        control.Verdict(session, DisconnectReason.TOO_MANY_PEERS, "full"),
        control.Broadcast(call, (session,), eth.NAME, 2, rlp.encode([])),
        control.SetHead(call, CHAIN.head),
        control.SetProtocols(call, PROTOCOLS, ("snap",)),
    ]
    reports: list[Any] = [
        control.Ready(5),
        control.SessionAuthenticated(session, THEIRS.id),
        control.Sent(call, 3, {5: ErrorName.QUEUE_FULL}),
        control.Reply(call, ErrorName.NOT_SHARED, "words"),
        control.Pulse(0, 1.5, 1000, 0, 0),
        control.LogLine("info", "words"),
    ]
    return [b"".join(map(control.encode, messages)) for messages in (commands, reports)]


def conversations() -> list[bytes]:
    """A peer that behaves well from each stage on, then sends every eth message, in the form of `session_frames`."""
    last = len(STAGES) * eth.VERSIONS.index(69)
    hello = message(HELLO, hello_payloads()[0].replace(THEIRS.id, RawPeer().key.id), how=1)
    right_status = message(ETH, status(69))
    verdict, pause = bytes([VERDICT_COMES, 0]), bytes([TIME_PASSES, 15])
    goodbye = message(DISCONNECT, b"\xc1\x04")
    talk = [message(PING, p2p.EMPTY_LIST), message(ETH + 3, REQUEST_HEADERS), pause, message(PONG, p2p.EMPTY_LIST)]
    answer = [message(ETH + 4, rlp.encode([number, []])) for number in range(3)]
    messages = [message(ETH + number, payload) for number, payload in eth_payloads(69) if number and len(payload) < 250]
    flow = [hello, right_status, verdict, b"".join(talk) + goodbye]
    flows = [bytes([last + stage]) + b"".join(flow[stage:]) for stage in range(len(STAGES))]
    active = bytes([last + STAGES.index(Stage.ACTIVE)])
    return [*flows, active + b"".join(answer), *(active + one for one in messages)]


def message(code: int, payload: bytes, *, how: int = 0) -> bytes:
    """One message of a `session_frames` input."""
    return bytes([how, code, len(payload)]) + payload


def raw_streams() -> list[bytes]:
    """An auth to the session, cut and whole, and one that is meant for another recipient."""
    auth = RawPeer().opening()
    stage = bytes([RAW_STAGES.index(Stage.AUTH)])
    stranger = handshake_packet(RLP[2], OURS.point, seeded(1))
    return [stage + b"\x00\x20" + auth, stage + b"\xff\xff" + auth, stage + b"\xff\xff" + stranger]
