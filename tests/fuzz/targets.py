"""The fuzz targets: each takes any bytes, and raises if the contract in its docstring is broken.

There is one target for each decoder of `protocol/`, and two for a whole session. If a decoder has versions, stages or cuts,
the first bytes of the input choose among them; `seeds.py` shows what well-formed inputs look like.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import msgspec
import rlp as oracle

from rlpx.protocol import rlp
from rlpx.protocol.bus import control, nats_wire, zmtp
from rlpx.protocol.bus.arguments import message_of
from rlpx.protocol.bus.commands import COMMANDS, BroadcastParameters, SendParameters
from rlpx.protocol.bus.data_heads import NotUnderstoodError, Use, read_use
from rlpx.protocol.bus.feed_filters import MessageFacts, message_test
from rlpx.protocol.bus.feeds import FeedError, Where, read_feed_message
from rlpx.protocol.bus.framing import StreamDecoder
from rlpx.protocol.bus.json_rpc import (
    REFUSALS,
    find_command,
    identifier_of,
    read_parameters,
    read_request,
    refused,
)
from rlpx.protocol.bus.reports import Published, ReportReader, encode_published
from rlpx.protocol.errors import FrameError, HandshakeError, MessageError, NotSharedError, PeerError, RlpError, SnappyError
from rlpx.protocol.eth import eth, snap, snap_messages
from rlpx.protocol.eth import messages as eth_messages
from rlpx.protocol.eth.forkid import FIRST_TIMESTAMP, Chain, ForkId, Forks, Verdict
from rlpx.protocol.eth.kinds import MessageTable
from rlpx.protocol.eth.status import check_status, decode_status
from rlpx.protocol.eth.table import MessageRole
from rlpx.protocol.lifecycle import Stage
from rlpx.protocol.rlpx import ecies, p2p
from rlpx.protocol.rlpx.bounds import MAX_FRAME_BYTES
from rlpx.protocol.rlpx.capabilities import FIRST_CAPABILITY_CODE, LAST_CODE, Capability, share
from rlpx.protocol.rlpx.frames import HEADER_BYTES, FrameCipher, PythonFrameCipher
from rlpx.protocol.rlpx.handshake import SIZE_BYTES, Initiator, Recipient, Secrets
from rlpx.protocol.rlpx.p2p import Hello
from rlpx.protocol.session.events import Event, MessageReceived
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
# The stages up to which a peer may behave well before it sends the input.
STAGES: Final = (Stage.HELLO, Stage.STATUS, Stage.VERDICT, Stage.ACTIVE)
RAW_STAGES: Final = (Stage.AUTH, Stage.ACK, *STAGES)
# Stands in a `session_frames` input in place of a message: time passes, by as many seconds as the next byte says.
TIME_PASSES: Final = 0xFF
VERDICT_COMES: Final = 0xFE
# A day, in which every deadline of a session passes.
LONG_SECONDS: Final = 86_400


# A user's greeting: ZMTP 3.1 without a mechanism's secrets.
USER_GREETING: Final = (b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0")).ljust(zmtp.GREETING_BYTES, b"\0")


class Script:
    """Bytes read as decisions; beyond their end there are zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def number(self, size: int = 1) -> int:
        """The next bytes as a number."""
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> bytes:
        """The next bytes; fewer at the end."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def rest(self) -> bytes:
        """The remaining bytes."""
        return self.take(len(self._data))


# -- RLP ---------------------------------------------------------------------------------------------------------------


def rlp_item(data: bytes) -> None:
    """Input that decodes encodes to the same bytes. An `RlpError` is no item to the oracle either, or nested too deep.

    Python and compiled code agree.
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
    """The depth of nested lists."""
    return 1 + max(map(depth, item), default=0) if isinstance(item, list) else 0


def rlp_first(data: bytes) -> None:
    """A first integer is an `RlpError`, or can be replaced by any other and back without changing the rest."""
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
    """A sealed text opens to itself. If a byte is changed, if it is cut, or if it is noise, it is a `HandshakeError`."""
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
    """Noise as a packet is a `HandshakeError`; a sealed packet is one too, or yields secrets for both sides.

    The first byte says whether it is noise, an auth or an ack.
    """
    script = Script(data)
    kind, body = script.number() % 3, script.rest()
    if kind == 0:
        assert is_refused(lambda: Recipient(body, OURS, seeded(3)))
        assert is_refused(lambda: initiator().open_ack(body))
    elif kind == 1:
        with suppress(HandshakeError):
            recipient = Recipient(handshake_packet(body, OURS.point, seeded(4)), OURS, seeded(5))
            assert rlp.decode_list(body)[1] == recipient.peer.id
            assert len(recipient.ack) == SIZE_BYTES + int.from_bytes(recipient.ack[:SIZE_BYTES], "big")
    else:
        with suppress(HandshakeError):
            secrets = initiator().open_ack(handshake_packet(body, THEIRS.point, seeded(6)))
            assert len(secrets.aes) == len(secrets.mac) == 32


@functools.cache
def initiator() -> Initiator:
    """The initiator that dials us; reading changes nothing in it."""
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
    """However a stream of frames is cut, they come out as they went in; after a damaged one comes only a `FrameError`."""
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
    """A cipher lets no noise through: a complete header of noise is a `FrameError`."""
    assert drain(iter([data])) == ([], len(data) >= HEADER_BYTES)


def frame_cipher(egress: bytes, ingress: bytes, made_by: type[PythonFrameCipher] = FrameCipher) -> FrameCipher:
    """One side of a connection."""
    cipher = made_by(Secrets(bytes(32), bytes(32), egress, ingress))
    cipher.limit_bytes = MAX_FRAME_BYTES
    return cipher


def drain(chunks: Iterator[bytes]) -> tuple[list[bytes], bool]:
    """The messages of a stream, and whether it ends in an error; Python and compiled code agree."""
    compiled = frame_cipher(b"the other", b"one way")
    in_python = frame_cipher(b"the other", b"one way", PythonFrameCipher)
    opened: list[bytes] = []
    for chunk in chunks:
        frames = take(compiled, chunk)
        assert frames == take(in_python, chunk)
        assert compiled.buffered_bytes == in_python.buffered_bytes
        opened += frames[0]
        if frames[1]:
            return opened, True
    return opened, False


def take(cipher: FrameCipher, chunk: bytes) -> tuple[list[bytes], str]:
    """The messages that a cipher gives after a chunk, and the text of the error that follows them.

    The chunk is in memory that is used again.
    """
    opened: list[bytes] = []
    lent = bytearray(chunk)
    try:
        first = cipher.open(memoryview(lent))
        lent[:] = bytes(len(lent))
        if first is not None:
            opened.append(first)
            # An error leaves what was extended before it.
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
    # Names are made printable and cut once more, so only their number is compared.
    assert len(again.capabilities) == len(read.capabilities)
    assert msgspec.structs.replace(again, capabilities=read.capabilities) == read
    assert all(item.name.isprintable() for item in read.capabilities)
    end = FIRST_CAPABILITY_CODE
    for item in share(PROTOCOLS, read.capabilities):
        assert item.offset == end
        end += item.messages
    assert end <= LAST_CODE + 1
    with suppress(PeerError):
        read.check(THEIRS.id)


def disconnect(data: bytes) -> None:
    """A Disconnect never raises: its reason reads the same after we encode it, or one line says why it has none."""
    read = p2p.decode_disconnect(data)
    assert read.cause.isprintable()
    if read.reason is not None:
        for spelling in (p2p.encode_disconnect(read.reason), p2p.deflate(p2p.encode_disconnect(read.reason))):
            assert p2p.decode_disconnect(spelling).reason == read.reason


def snappy(data: bytes) -> None:
    """A block is a `SnappyError`, or inflates to as many bytes as it announces, within the limit, and deflates again."""
    script = Script(data)
    limit, block = script.number(2), script.rest()
    inflated, error = inflated_by(p2p.inflate, block, limit)
    assert (inflated, error) == inflated_by(p2p.python_inflate, block, limit)
    if error:
        return
    assert len(inflated) == p2p.inflated_bytes(block, limit) <= limit
    assert p2p.inflate(p2p.deflate(inflated), limit) == inflated


def inflated_by(inflate: Callable[[bytes, int], bytes], block: bytes, limit: int) -> tuple[bytes, str]:
    """A block's text, or that of the error."""
    try:
        return inflate(block, limit), ""
    except SnappyError as error:
        return b"", str(error)


# -- the chain ---------------------------------------------------------------------------------------------------------


def status(data: bytes) -> None:
    """A Status of any version is a `PeerError`, or what we would write as well; judging it raises nothing else."""
    script = Script(data)
    version, payload = eth.VERSIONS[script.number() % len(eth.VERSIONS)], script.rest()
    with suppress(PeerError):
        read = decode_status(payload, version)
        assert payload.startswith(read.encode())
        check_status(read, version, CHAIN, WALL_SECONDS)


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
    assert {forks.check(forks.at(*theirs), *ours) for theirs in heads for ours in heads} == {Verdict.OK}
    encoded = script.rest()
    try:
        remote = ForkId.from_rlp(rlp.decode(encoded))
    except PeerError:
        return
    assert rlp.encode(remote.to_rlp()) == encoded
    known = {forks.at(block, FIRST_TIMESTAMP).hash for block in (0, *blocks)}
    known |= {forks.at(forks.last_block, time).hash for time in times}
    for head in heads:
        assert remote.hash in known or forks.check(remote, *head) is Verdict.LOCAL_INCOMPATIBLE_OR_STALE


def eth_target(version: int) -> Target:
    """The target of one version; the first byte is the message's id."""
    table = message_table(eth.sub_protocol(version).capability)

    def target(data: bytes) -> None:
        """A payload is an `RlpError` or a `MessageError`, or a message of its id that we would encode to the same bytes."""
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
        """A payload is an `RlpError` or a `MessageError`, or a message of its id that we encode to the same bytes."""
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
    code = FIRST_CAPABILITY_CODE + number
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
    """A stream gives the same in any cut: a `ValueError` of msgspec, or messages that encode to the same bytes."""
    script = Script(data)
    piece, stream = 1 + script.number(2), script.rest()
    for decoder in (control.command_decoder, ReportReader):
        whole = messages_of(decoder(), iter([stream]))
        assert messages_of(decoder(), Wire([piece]).carry(stream)) == whole
        again = messages_of(decoder(), iter(whole or []))
        assert again == whole or whole is None


def _encoded(message: control.Command | control.Report | Published) -> bytes:
    return b"".join(encode_published(message)) if isinstance(message, Published) else control.encode(message)


def messages_of(decoder: StreamDecoder[Any] | ReportReader, chunks: Iterator[bytes]) -> list[bytes] | None:
    """The messages in a stream as we would encode them, or none if it cannot be read."""
    try:
        return [_encoded(message) for chunk in chunks for message in decoder.feed(chunk)]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


# -- users of ours -------------------------------------------------------------------------------------------------------


USER_LIMITS: Final = zmtp.Limits(message_bytes=300, message_frames=4, prefixes=4, prefix_bytes=64, dropped_bytes=500)


def zmtp_stream(data: bytes) -> None:
    """A user's bytes give the same events in any cut, none after the end, and hold no more memory than the limits allow."""
    script = Script(data)
    kind = zmtp.Kind.ROUTER if script.number() & 1 else zmtp.Kind.XPUB
    piece, stream = 1 + script.number(), script.rest()
    whole = user_events(kind, iter([stream]))
    assert user_events(kind, Wire([piece]).carry(stream)) == whole
    assert not any(isinstance(event, zmtp.Ended) for event in whole[:-1])


def user_events(kind: zmtp.Kind, chunks: Iterator[bytes]) -> list[zmtp.Event]:
    """What the listening side makes of these bytes after a greeting."""
    connection = zmtp.ServerConnection(kind, USER_LIMITS, zmtp.Null())
    events: list[zmtp.Event] = []
    for chunk in (USER_GREETING, *chunks):
        connection.receive(chunk)
        while not connection.is_starved:
            event = connection.step()
            if event is not None:
                events.append(event)
        bound = zmtp.HANDSHAKE_COMMAND_MAX_BYTES + len(chunk)
        assert connection.held_bytes <= bound
        assert len(connection.prefixes) <= USER_LIMITS.prefixes
        connection.outgoing()
    return events


# -- the fleet's servers -----------------------------------------------------------------------------------------------


def nats_stream(data: bytes) -> None:
    """A server's bytes give the same messages in any cut, or a `NatsWireError` in every one."""
    script = Script(data)
    piece, stream = 1 + script.number(), script.rest()
    assert nats_messages(Wire([piece]).carry(stream)) == nats_messages(iter([stream]))


def nats_messages(chunks: Iterator[bytes]) -> tuple[list[nats_wire.Message], list[nats_wire.Said]] | None:
    """The messages of a subscription and what the server says besides, or none if it is not the protocol."""
    reader = nats_wire.Reader(1)
    messages: list[nats_wire.Message] = []
    lines: list[nats_wire.Said] = []
    try:
        for chunk in chunks:
            [read], said = reader.receive(chunk)
            messages += read
            lines += said
    except nats_wire.NatsWireError:
        return None
    return messages, lines


# -- a whole session ---------------------------------------------------------------------------------------------------


def session_frames(data: bytes) -> None:
    """Whatever a peer sends in well-sealed frames, at any stage: a session never raises, and nothing follows its end.

    The first byte chooses how long the peer behaves well, and the version of eth it offers. Then come messages (for each:
    whether it is compressed, the code, the size and the payload), passing time, or the verdict. An active session has a
    request for headers open, and answers the peer's requests with nothing.
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
    peer.session.data_to_send()
    check_silence(peer)


def answer(peer: RawPeer, events: list[Event]) -> None:
    """Answer the requests of the peer with nothing, unless they are malformed."""
    for event in events:
        if isinstance(event, MessageReceived) and event.kind.role is MessageRole.REQUEST and event.request_id is not None:
            with suppress(RlpError):
                peer.session.answer(event, event.kind.empty_answer(event.request_id, event.payload))


def check_silence(peer: RawPeer) -> None:
    """There is an end, and after it nothing is reported or written, whatever arrives."""
    while not peer.session.is_closed:
        peer.session.data_to_send()
        peer.waits(LONG_SECONDS)
    peer.session.data_to_send()
    assert peer.gives(EMPTY_LIST) + peer.is_admitted() + peer.waits(LONG_SECONDS) == []
    assert peer.session.data_to_send() == b""


def feed_head(data: bytes) -> None:
    """A head of a feed's message is a message, or an error that names what is allowed, and nothing else."""
    with suppress(NotUnderstoodError):
        assert read_use(data) in Use
    with suppress(NotUnderstoodError, FeedError):
        message = read_feed_message(data)
        assert read_feed_message(msgspec.json.encode(message)) == message


def call_text(data: bytes) -> None:
    """The text of a request, and a frame if there is one, is a call that can be carried out, or a reply with an error."""
    script = Script(data)
    frames = [script.take(script.number())] if script.number() & 1 else []
    body = script.rest()
    try:
        request = read_request(body)
        command = find_command(request.method, COMMANDS)
        parameters, payload = read_parameters(command, request, frames)
        if isinstance(parameters, SendParameters | BroadcastParameters):
            assert 0 <= message_of(parameters) <= LAST_CODE
        assert (payload is None) is not command.has_payload
    except REFUSALS as error:
        reply = msgspec.json.decode(refused(identifier_of(body), error))
        assert reply.keys() == {"jsonrpc", "id", "error"}
        assert len(reply["error"]["message"]) < MAX_ERROR_CHARACTERS


# Errors repeat a part of what is wrong and list what is allowed: the longest lists are those of commands and messages.
MAX_ERROR_CHARACTERS: Final = 2000


def feed_filter(data: bytes) -> None:
    """Filters raise for no payload, and see of an announcement what decoding it gives."""
    version, number, payload = eth.VERSIONS[(data[:1] or b"\0")[0] % len(eth.VERSIONS)], (data[1:2] or b"\0")[0], data[2:]
    try:
        kind = message_table(eth.sub_protocol(version).capability).find(eth.NAME, number)
    except NotSharedError:
        return
    facts = MessageFacts(kind, payload)
    for where in FEED_FILTERS:
        test = message_test(where)
        assert test is None or test(facts) in {True, False}
    if not facts.is_announcement or version < eth.TYPED_ANNOUNCEMENT_VERSION:
        return
    with suppress(RlpError, MessageError):
        decoded: Any = eth_messages.decode(version, number, payload)
        assert facts.types == frozenset(decoded.types)
        for found, size in zip(decoded.types, decoded.sizes, strict=True):
            assert facts.announces(size, size, frozenset({found}))
        assert not facts.announces(max(decoded.sizes, default=0) + 1, None, None)


FEED_FILTERS: Final = (Where(types=(0, 3)), Where(min_size=10, max_size=1 << 62), Where(types=(2,), min_size=1), Where())


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
    "zmtp": zmtp_stream,
    "nats": nats_stream,
    "call": call_text,
    "feed-head": feed_head,
    "feed-filter": feed_filter,
    "session-frames": session_frames,
    "session-bytes": session_bytes,
}
