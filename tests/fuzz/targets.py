"""What is fuzzed: a target takes any bytes, and raises where the contract on top of it is broken.

One target a decoder of `protocol/`, and two for a whole session. Where a decoder has versions, stages or cuts, the first
bytes of the input choose among them; `seeds.py` shows what well-formed inputs look like.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import msgspec
import rlp as oracle

from protocol import control, ecies, eth, eth_messages, p2p, rlp, snap, snap_messages
from protocol.capabilities import LAST_CODE, share
from protocol.errors import FrameError, HandshakeError, MessageError, PeerError, RlpError, SnappyError
from protocol.eth import Role
from protocol.events import Event, MessageReceived, Stage
from protocol.forkid import FIRST_TIMESTAMP, Chain, ForkId, Forks, Verdict
from protocol.frames import HEADER_BYTES, MAX_FRAME_BYTES, FrameCipher, PythonFrameCipher
from protocol.handshake import SIZE_BYTES, Initiator, Responder, Secrets
from protocol.messages import MessageTable
from protocol.p2p import Capability, Hello
from tests.pair import (
    CHAIN,
    EMPTY_LIST,
    GENESIS,
    PROTOCOLS,
    WALL_SECONDS,
    RawPeer,
    Wire,
    handshake_packet,
    key,
    seeded,
)

Target = Callable[[bytes], None]

OURS: Final = key(2)
THEIRS: Final = key(1)
MAC_DATA: Final = b"mac data"
# A request of ours that waits for its answer while an active peer talks.
GET_BLOCK_HEADERS: Final = 0x03
# How far a peer may have behaved well, before it says what is in the input.
STAGES: Final = (Stage.HELLO, Stage.STATUS, Stage.VERDICT, Stage.ACTIVE)
RAW_STAGES: Final = (Stage.AUTH, Stage.ACK, *STAGES)
# What stands in a `session_frames` input in place of a message: the byte after the first one says for how many seconds.
TIME_PASSES: Final = 0xFF
VERDICT_COMES: Final = 0xFE
# A day: every deadline of a session passes in it.
LONG_SECONDS: Final = 86_400


class Script:
    """Bytes read as decisions: whoever asks for more than there is gets zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def number(self, size: int = 1) -> int:
        """The next bytes as a number."""
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))


# -- RLP ---------------------------------------------------------------------------------------------------------------


def rlp_item(data: bytes) -> None:
    """What decodes encodes to the same bytes; what is an `RlpError` is no item to the oracle either, or nested too deep.

    Python and compiled code say the same.
    """
    outcomes = []
    for read in (rlp.python_read, rlp.read):
        try:
            outcomes.append(repr(read(data, rlp.MAX_ITEMS)))
        except RlpError as error:
            outcomes.append(repr(error))
    assert outcomes[0] == outcomes[1]
    try:
        item, end = rlp.decode_prefix(data)
    except RlpError:
        assert not is_within_bounds(data)
        return
    assert rlp.encode(item) == data[:end]
    if isinstance(item, list):
        assert rlp.join(rlp.raw_elements(data, len(item))) == data[:end]
        assert [is_list for is_list, _, _ in rlp.spans(data, len(item))] == [isinstance(inner, list) for inner in item]


def is_within_bounds(data: bytes) -> bool:
    """Whether the oracle reads all of it as one item that is not too deep for us."""
    try:
        return depth(oracle.decode(data)) <= rlp.MAX_DEPTH
    except (oracle.DecodingError, RecursionError):
        return False


def depth(item: Any) -> int:
    """How many lists stand in each other."""
    return 1 + max(map(depth, item), default=0) if isinstance(item, list) else 0


def rlp_first(data: bytes) -> None:
    """A first integer is an `RlpError`, or can be replaced by any other and back; all else stays as it was."""
    try:
        first = rlp.first_uint(data)
    except RlpError:
        with suppress(RlpError):
            rlp.with_first(data, 1)
        return
    for other in (0, 1, 0x7F, 0x80, 2**64 - 1):
        changed = rlp.with_first(data, other)
        assert rlp.first_uint(changed) == other
        assert data.startswith(rlp.with_first(changed, first))


# -- the handshake -----------------------------------------------------------------------------------------------------


def ecies_box(data: bytes) -> None:
    """A sealed text opens to itself; with one byte changed, or cut there, or if it is noise, it is a `HandshakeError`."""
    script = Script(data)
    harm, place, text = script.number(), script.number(2), script.rest()
    damaged = text
    if harm:
        sealed = ecies.seal(text, OURS.point, MAC_DATA, seeded(place))
        assert ecies.open_(sealed, OURS, MAC_DATA) == text
        place %= len(sealed)
        damaged = sealed[:place] if harm == 1 else sealed[:place] + bytes([sealed[place] ^ harm]) + sealed[place + 1 :]
    assert is_refused(lambda: ecies.open_(damaged, OURS, MAC_DATA))


def handshake(data: bytes) -> None:
    """A packet that nobody sealed is a `HandshakeError`; what is sealed in one is, or there are secrets for both sides.

    The first byte says whether it is noise, an auth or an ack.
    """
    script = Script(data)
    kind, body = script.number() % 3, script.rest()
    if kind == 0:
        assert is_refused(lambda: Responder(body, OURS, seeded(3)))
        assert is_refused(lambda: initiator().open_ack(body))
    elif kind == 1:
        with suppress(HandshakeError):
            responder = Responder(handshake_packet(body, OURS.point, seeded(4)), OURS, seeded(5))
            assert rlp.decode_list(body)[1] == responder.peer.id
            assert len(responder.ack) == SIZE_BYTES + int.from_bytes(responder.ack[:SIZE_BYTES], "big")
    else:
        with suppress(HandshakeError):
            secrets = initiator().open_ack(handshake_packet(body, THEIRS.point, seeded(6)))
            assert len(secrets.aes) == len(secrets.mac) == 32


@functools.cache
def initiator() -> Initiator:
    """The one that dials us: what it reads changes nothing in it."""
    return Initiator(THEIRS, OURS.id, seeded(7))


def is_refused(read: Callable[[], object]) -> bool:
    """Whether it ends in a `HandshakeError`."""
    try:
        read()
    except HandshakeError:
        return True
    return False


# -- frames ------------------------------------------------------------------------------------------------------------


def frames(data: bytes) -> None:
    """However a stream of frames is cut, they come out as they went in; from a harmed one on comes only a `FrameError`."""
    script = Script(data)
    harm, place, piece = script.number(), script.number(2), 1 + script.number(2)
    contents = []
    while script:
        contents.append(script.take(script.number()))
    writer = frame_cipher(b"one way", b"the other")
    sealed = [writer.seal(content) for content in contents]
    stream = bytearray(b"".join(sealed))
    intact = len(sealed)
    if harm and stream:
        place %= len(stream)
        stream[place] ^= harm
        intact = next(count for count in range(len(sealed)) if place < sum(map(len, sealed[: count + 1])))
    opened, failed = drain(Wire([piece]).carry(bytes(stream)))
    assert opened == contents[:intact]
    assert failed is (intact < len(sealed))


def frame_noise(data: bytes) -> None:
    """Nothing that nobody sealed comes out of a cipher: a whole header of it is a `FrameError`."""
    assert drain(iter([data])) == ([], len(data) >= HEADER_BYTES)


def frame_cipher(egress: bytes, ingress: bytes, made_by: type[PythonFrameCipher] = FrameCipher) -> FrameCipher:
    """One side of a connection."""
    cipher = made_by(Secrets(bytes(32), bytes(32), egress, ingress))
    cipher.limit_bytes = MAX_FRAME_BYTES
    return cipher


def drain(chunks: Iterator[bytes]) -> tuple[list[bytes], bool]:
    """What comes out of a stream, and whether it ends in an error: the same by Python and by compiled code."""
    compiled = frame_cipher(b"the other", b"one way")
    in_python = frame_cipher(b"the other", b"one way", PythonFrameCipher)
    opened: list[bytes] = []
    for chunk in chunks:
        compiled.feed(chunk)
        in_python.feed(chunk)
        frames = take(compiled)
        assert frames == take(in_python)
        assert compiled.buffered_bytes == in_python.buffered_bytes
        opened += frames[0]
        if frames[1]:
            return opened, True
    return opened, False


def take(cipher: FrameCipher) -> tuple[list[bytes], str]:
    """What comes out of a cipher now, and the words of the error behind it."""
    opened: list[bytes] = []
    try:
        opened.extend(cipher.frames())
    except FrameError as error:
        return opened, repr(error)
    return opened, ""


# -- the base protocol -------------------------------------------------------------------------------------------------


def hello(data: bytes) -> None:
    """A Hello is a `PeerError`, or says the same when we encode it; what is shared with it has codes of its own."""
    try:
        read = Hello.decode(data)
    except PeerError:
        return
    again = Hello.decode(read.encode())
    # Names are made printable and cut once more: of them only the number stays.
    assert len(again.capabilities) == len(read.capabilities)
    assert msgspec.structs.replace(again, capabilities=read.capabilities) == read
    assert all(item.name.isprintable() for item in read.capabilities)
    end = p2p.FIRST_CAPABILITY_CODE
    for item in share(PROTOCOLS, read.capabilities):
        assert item.offset == end
        end += item.messages
    assert end <= LAST_CODE + 1
    with suppress(PeerError):
        read.check(THEIRS.id)


def disconnect(data: bytes) -> None:
    """A Disconnect never raises: it has a reason that is read again as we spell it, or none."""
    for decode in (p2p.decode_disconnect, p2p.decode_disconnect_after_hello):
        reason = decode(data)
        if reason is not None:
            assert decode(p2p.encode_disconnect(reason)) is reason
            assert p2p.decode_disconnect_after_hello(p2p.deflate(p2p.encode_disconnect(reason))) is reason


def snappy(data: bytes) -> None:
    """A block is a `SnappyError`, or inflates to as many bytes as it says, no more than allowed, and back."""
    script = Script(data)
    limit, block = script.number(2), script.rest()
    try:
        inflated = p2p.inflate(block, limit)
    except SnappyError:
        return
    assert len(inflated) == p2p.inflated_bytes(block, limit) <= limit
    assert p2p.inflate(p2p.deflate(inflated), limit) == inflated


# -- the chain ---------------------------------------------------------------------------------------------------------


def status(data: bytes) -> None:
    """A Status of any version is a `PeerError`, or what we would write as well; judging it raises nothing else."""
    script = Script(data)
    version, payload = eth.VERSIONS[script.number() % len(eth.VERSIONS)], script.rest()
    with suppress(PeerError):
        read = eth.decode_status(payload, version)
        assert payload.startswith(read.encode())
        eth.check_status(read, version, CHAIN, WALL_SECONDS)


def forkid(data: bytes) -> None:
    """Heads of one chain accept each other; a fork id is a `PeerError` or encodes again, and a stranger's never passes."""
    script = Script(data)
    blocks = tuple(script.number(2) for _ in range(script.number() % 5))
    times = tuple(FIRST_TIMESTAMP + script.number(2) for _ in range(script.number() % 5))
    forks = Forks(Chain("fuzzed", 1, GENESIS.hex(), FIRST_TIMESTAMP, blocks, times))
    heads = (
        (forks.last_block + script.number(2), FIRST_TIMESTAMP + script.number(2)),
        (forks.last_block + script.number(2), FIRST_TIMESTAMP + script.number(2)),
        (script.number(2), FIRST_TIMESTAMP),
    )
    assert {forks.judge(forks.at(*theirs), *ours) for theirs in heads for ours in heads} == {Verdict.OK}
    encoded = script.rest()
    try:
        remote = ForkId.from_rlp(rlp.decode(encoded))
    except PeerError:
        return
    assert rlp.encode(remote.to_rlp()) == encoded
    known = {forks.at(block, FIRST_TIMESTAMP).hash for block in (0, *blocks)}
    known |= {forks.at(forks.last_block, time).hash for time in times}
    for head in heads:
        assert remote.hash in known or forks.judge(remote, *head) is Verdict.LOCAL_INCOMPATIBLE_OR_STALE


def eth_target(version: int) -> Target:
    """The target of one version; the first byte is the message's id."""
    table = message_table(eth.sub_protocol(version).capability)

    def target(data: bytes) -> None:
        """A payload is an `RlpError` or a `MessageError`, or a message of its id that we would write with the same bytes."""
        number, payload = data[0] if data else 0, data[1:]
        answers_with_nothing(table, number, payload, functools.partial(eth_messages.decode, version))
        try:
            message = eth_messages.decode(version, number, payload)
        except (RlpError, MessageError):
            return
        assert eth_messages.id_of(version, message) == number
        assert payload.startswith(eth_messages.encode(version, message))

    return target


def snap_target(version: int) -> Target:
    """The target of one version; the first byte is the message's id."""
    table = message_table(snap.sub_protocol(version).capability)

    def target(data: bytes) -> None:
        """A payload is an `RlpError` or a `MessageError`, or a message of its id that we would write exactly so."""
        number, payload = data[0] if data else 0, data[1:]
        answers_with_nothing(table, number, payload, functools.partial(snap_messages.decode, version))
        try:
            message = snap_messages.decode(version, number, payload)
        except (RlpError, MessageError):
            return
        assert snap_messages.id_of(version, message) == number
        assert payload == snap_messages.encode(version, message)

    return target


def message_table(capability: Capability) -> MessageTable:
    """The messages of one capability."""
    return MessageTable(share(PROTOCOLS, [capability]))


def answers_with_nothing(table: MessageTable, number: int, payload: bytes, decode: Callable[[int, bytes], Any]) -> None:
    """A request is answered with an `RlpError`, or with the response that belongs to it, under its id."""
    code = p2p.FIRST_CAPABILITY_CODE + number
    kind = table.by_code[code] if code <= LAST_CODE else None
    if kind is None or kind.answer is None:
        return
    try:
        request_id = rlp.first_uint(payload)
        answer = kind.empty_answer(request_id, payload)
    except RlpError:
        return
    assert decode(kind.answer, answer).request_id == request_id


# -- between our own processes -----------------------------------------------------------------------------------------


def control_stream(data: bytes) -> None:
    """Of a stream in any cut comes the same: a `ValueError` of msgspec's, or messages that encode again as they are."""
    script = Script(data)
    piece, stream = 1 + script.number(2), script.rest()
    for decoder in (control.command_decoder, control.report_decoder):
        whole = messages_of(decoder(), iter([stream]))
        assert messages_of(decoder(), Wire([piece]).carry(stream)) == whole
        again = messages_of(decoder(), iter(whole or []))
        assert again == whole or whole is None


def messages_of(decoder: control.StreamDecoder[Any], chunks: Iterator[bytes]) -> list[bytes] | None:
    """The messages in a stream as we would encode them, or none of them where it cannot be read."""
    try:
        return [control.encode(message) for chunk in chunks for message in decoder.feed(chunk)]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


# -- a whole session ---------------------------------------------------------------------------------------------------


def session_frames(data: bytes) -> None:
    """Whatever a peer says in well-sealed frames, at any stage: a session never raises, and nothing follows its end.

    The first byte chooses how far the peer behaves, and the version of eth it offers. Then come messages: whether it is
    compressed, the code, the size and the payload of each; or time passes, or the verdict comes. An active session has
    asked for headers, and answers what it is asked with nothing.
    """
    script = Script(data)
    choice, stage = divmod(script.number(), len(STAGES))
    offer = (Capability("eth", eth.VERSIONS[choice % len(eth.VERSIONS)]), Capability("snap", 1))
    peer = RawPeer.at(STAGES[stage], offer=offer)
    if peer.session.stage is Stage.ACTIVE:
        peer.session.request(eth.NAME, GET_BLOCK_HEADERS, rlp.encode([0, []]), now=peer.clock.now)
    while script and not peer.session.is_closed:
        how, code = script.number(), script.number()
        if how == TIME_PASSES:
            peer.waits(code)
        elif how == VERDICT_COMES:
            peer.is_admitted()
        else:
            answer(peer, peer.says(code, script.take(script.number()), is_snappy=how % 2 == 0))
        assert peer.goodbye is None or peer.session.is_closed
    check_silence(peer)


def session_bytes(data: bytes) -> None:
    """Whatever bytes a peer sends, at any stage and in any pieces: a session never raises, and nothing follows its end."""
    script = Script(data)
    stage, piece = RAW_STAGES[script.number() % len(RAW_STAGES)], 1 + script.number(2)
    peer = RawPeer.at(stage, is_dialer=stage is not Stage.ACK)
    for chunk in Wire([piece]).carry(script.rest()):
        peer.gives(chunk)
    peer.session.outgoing()
    check_silence(peer)


def answer(peer: RawPeer, events: list[Event]) -> None:
    """Answer the requests of the peer with nothing, unless they are malformed."""
    for event in events:
        if isinstance(event, MessageReceived) and event.kind.role is Role.REQUEST and event.request_id is not None:
            with suppress(RlpError):
                peer.session.answer(event, event.kind.empty_answer(event.request_id, event.payload))


def check_silence(peer: RawPeer) -> None:
    """Whatever comes after the end, nothing is told and nothing is written; there is an end."""
    while not peer.session.is_closed:
        peer.session.outgoing()
        peer.waits(LONG_SECONDS)
    peer.session.outgoing()
    assert peer.gives(EMPTY_LIST) + peer.is_admitted() + peer.waits(LONG_SECONDS) == []
    assert peer.session.outgoing() == b""


TARGETS: Final[dict[str, Target]] = {
    "rlp": rlp_item,
    "rlp-first": rlp_first,
    "ecies": ecies_box,
    "handshake": handshake,
    "frames": frames,
    "frame-noise": frame_noise,
    "hello": hello,
    "disconnect": disconnect,
    "snappy": snappy,
    "status": status,
    "forkid": forkid,
    **{f"eth-{version}": eth_target(version) for version in eth.VERSIONS},
    **{f"snap-{version}": snap_target(version) for version in snap.VERSIONS},
    "control": control_stream,
    "session-frames": session_frames,
    "session-bytes": session_bytes,
}
