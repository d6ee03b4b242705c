"""Hello, Disconnect, Ping and Snappy, beside published payloads, the `rlp` library and a Snappy reader of this file."""

from __future__ import annotations

import cramjam
import pytest
import rlp as oracle
import snappy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol import p2p
from protocol.errors import (
    PEER_TEXT_MAX_CHARACTERS,
    DisconnectReason,
    IncompatibleVersionError,
    MessageError,
    NullIdentityError,
    PingFloodError,
    RlpError,
    SnappyError,
    UnexpectedIdentityError,
)
from protocol.p2p import Capability, Hello, PingBucket
from tests.vectors import load

repeatable = settings(derandomize=True, deadline=None)

VECTORS = load("p2p_hello_disconnect")
EIP8_HELLO = VECTORS["eip8_hello"]
NODE_ID = bytes(range(64))
U64 = st.integers(0, 2**64 - 1)
# What a log may show as it is; the rest is escaped, which has a test of its own.
LOGGABLE = st.characters(codec="utf-8", exclude_categories=("C", "Z"))

hellos = st.builds(
    Hello,
    client=st.text(st.characters(codec="utf-8"), max_size=40),
    capabilities=st.lists(st.builds(Capability, st.text(LOGGABLE, max_size=12), U64), max_size=6).map(tuple),
    listen_port=st.integers(0, 0xFFFF),
    node_id=st.binary(min_size=64, max_size=64).filter(any),
    version=U64,
)


def fields_of(hello: Hello) -> list[object]:
    """The five elements as the `rlp` library takes them."""
    capabilities = [[capability.name.encode(), capability.version] for capability in hello.capabilities]
    return [hello.version, hello.client.encode(), capabilities, hello.listen_port, hello.node_id]


def hello_payload(**changes: object) -> bytes:
    """A Hello by the `rlp` library, with some of its elements replaced."""
    fields = {"version": 5, "client": b"geth", "capabilities": [[b"eth", 69]], "port": 30303, "id": NODE_ID} | changes
    return bytes(oracle.encode(list(fields.values())))


def varint(value: int) -> bytes:
    """A length as Snappy writes it: seven bits a byte, the lowest first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def read_snappy(block: bytes) -> bytes:
    """Snappy's block format, read slowly from its description (`format_description.txt`): an oracle without cramjam."""
    length = shift = position = 0
    while True:
        byte = block[position]
        position += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    out = bytearray()
    while position < len(block):
        tag = block[position]
        position += 1
        kind, size = tag & 3, tag >> 2
        if kind == 0:
            if size >= 60:
                width = size - 59
                size = int.from_bytes(block[position : position + width], "little")
                position += width
            out += block[position : position + size + 1]
            position += size + 1
            continue
        if kind == 1:
            offset, size = (tag >> 5) << 8 | block[position], (size & 7) + 4
            position += 1
        else:
            width = 2 if kind == 2 else 4
            offset, size = int.from_bytes(block[position : position + width], "little"), size + 1
            position += width
        for _ in range(size):
            out.append(out[-offset])
    assert len(out) == length
    return bytes(out)


# -- Hello ------------------------------------------------------------------------------------------------------------------


def test_the_hello_of_eip_8_is_read_and_its_further_elements_are_ignored() -> None:
    payload = bytes.fromhex(EIP8_HELLO["payload_rlp"])
    hello = Hello.decode(payload)
    assert hello.version == EIP8_HELLO["version"] == 55
    assert hello.client == EIP8_HELLO["client"]
    assert hello.capabilities == tuple(Capability(name, version) for name, version in EIP8_HELLO["caps"])
    assert hello.listen_port == EIP8_HELLO["listen_port"]
    assert hello.node_id == bytes.fromhex(EIP8_HELLO["node_id"])
    spares = [bytes.fromhex(spare) for spare in EIP8_HELLO["extra_elements_rlp"]]
    plain = oracle.decode(hello.encode())
    assert oracle.encode([*plain, *map(oracle.decode, spares)]) == payload


@repeatable
@given(hello=hellos)
def test_a_hello_is_written_as_the_rlp_library_writes_it_and_reads_back(hello: Hello) -> None:
    payload = hello.encode()
    assert payload == oracle.encode(fields_of(hello))
    assert Hello.decode(payload) == hello


@repeatable
@given(
    hello=hellos,
    spares=st.lists(st.recursive(st.binary(max_size=8), lambda inner: st.lists(inner, max_size=3)), max_size=4),
    padding=st.binary(max_size=20),
)
def test_elements_and_bytes_that_eip_8_may_add_change_nothing(hello: Hello, spares: list[object], padding: bytes) -> None:
    assert Hello.decode(oracle.encode([*fields_of(hello), *spares]) + padding) == hello


def test_a_capability_with_further_elements_is_read_by_its_first_two() -> None:
    hello = Hello.decode(hello_payload(capabilities=[[b"eth", 69, b"future", []], [b"snap", 1]]))
    assert hello.capabilities == (Capability("eth", 69), Capability("snap", 1))
    assert [str(capability) for capability in hello.capabilities] == ["eth/69", "snap/1"]


@repeatable
@given(payload=st.binary(max_size=200))
@example(b"")
@example(bytes.fromhex(EIP8_HELLO["payload_rlp"])[:-70])
def test_no_bytes_in_a_hellos_place_raise_anything_but_a_peers_error(payload: bytes) -> None:
    with pytest.raises((RlpError, MessageError, NullIdentityError)):
        Hello.decode(payload)


@pytest.mark.parametrize("cut", range(len(bytes.fromhex(EIP8_HELLO["payload_rlp"]))))
def test_a_hello_cut_anywhere_is_refused(cut: int) -> None:
    with pytest.raises(RlpError):
        Hello.decode(bytes.fromhex(EIP8_HELLO["payload_rlp"])[:cut])


@pytest.mark.parametrize("count", range(5))
def test_a_hello_of_fewer_than_five_elements_is_malformed(count: int) -> None:
    fields = [5, b"geth", [[b"eth", 69]], 30303, NODE_ID][:count]
    with pytest.raises(MessageError, match=f"{count} of its 5 fields"):
        Hello.decode(oracle.encode(fields))


@pytest.mark.parametrize("node_id", [b"", bytes(64), NODE_ID[:-1], NODE_ID + b"\x01", b"\x01"])
def test_a_hello_whose_id_is_missing_zero_or_of_another_length_is_told_so(node_id: bytes) -> None:
    with pytest.raises(NullIdentityError) as caught:
        Hello.decode(hello_payload(id=node_id))
    assert caught.value.reason is DisconnectReason.INVALID_IDENTITY


@pytest.mark.parametrize(
    "changes",
    [
        {"version": [5]},
        {"version": b"\x00\x05"},
        {"version": b"\x01" * 9},
        {"client": [b"geth"]},
        {"capabilities": b"eth"},
        {"capabilities": [b"eth"]},
        {"capabilities": [[b"eth"]]},
        {"capabilities": [[]]},
        {"capabilities": [[[b"eth"], 69]]},
        {"capabilities": [[b"eth", [69]]]},
        {"capabilities": [[b"eth", b"\x00"]]},
        {"port": [30303]},
        {"port": b"\x00\x01"},
        {"id": [NODE_ID]},
    ],
)
def test_a_hello_with_an_element_of_the_wrong_kind_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(RlpError):
        Hello.decode(hello_payload(**changes))


def test_a_hello_with_more_capabilities_than_a_first_frame_could_ever_need_is_refused() -> None:
    # Each takes three items: the pair, the name and the version.
    most = (p2p.HELLO_MAX_ITEMS - 1) // 3
    assert len(Hello.decode(hello_payload(capabilities=[[b"a", 1]] * most)).capabilities) == most
    with pytest.raises(RlpError, match="more RLP items"):
        Hello.decode(hello_payload(capabilities=[[b"a", 1]] * (most + 1)))


def test_a_port_that_does_not_exist_is_cut_to_the_last_one() -> None:
    assert Hello.decode(hello_payload(port=0xFFFF)).listen_port == 0xFFFF
    assert Hello.decode(hello_payload(port=0x10000)).listen_port == 0xFFFF


def test_the_name_of_a_capability_is_printable_and_cut() -> None:
    escape = b"\x1b[31m\r\n\x00"
    hello = Hello.decode(hello_payload(capabilities=[[escape + b"x" * 500, 1], [b"\xff\xfe", 2]]))
    long, broken = hello.capabilities
    assert long.name == "\\x1b[31m\\r\\n\\x00" + "x" * (PEER_TEXT_MAX_CHARACTERS - len(escape))
    assert broken.name == "\ufffd\ufffd"
    assert all(str(capability).isprintable() for capability in hello.capabilities)


def test_a_client_name_that_is_no_utf_8_does_not_cost_the_session() -> None:
    assert Hello.decode(hello_payload(client=b"ge\xffth")).client == "ge\ufffdth"


def test_a_hello_of_another_id_than_the_handshake_proved_is_unexpected() -> None:
    hello = Hello("geth", (), 0, NODE_ID)
    hello.check(NODE_ID)
    with pytest.raises(UnexpectedIdentityError) as caught:
        hello.check(NODE_ID[::-1])
    assert caught.value.reason is DisconnectReason.UNEXPECTED_IDENTITY


@pytest.mark.parametrize("version", [0, 1, 4])
def test_a_base_protocol_without_snappy_is_incompatible(version: int) -> None:
    with pytest.raises(IncompatibleVersionError) as caught:
        Hello("old", (), 0, NODE_ID, version).check(NODE_ID)
    assert caught.value.reason is DisconnectReason.INCOMPATIBLE_VERSION


@pytest.mark.parametrize("version", [5, 6, 55, 2**64 - 1])
def test_the_base_protocols_of_today_and_later_are_fine(version: int) -> None:
    Hello("new", (), 0, NODE_ID, version).check(NODE_ID)
    with pytest.raises(UnexpectedIdentityError):
        Hello("new", (), 0, NODE_ID, version).check(bytes(64))


def test_the_id_is_looked_at_before_the_version() -> None:
    with pytest.raises(UnexpectedIdentityError):
        Hello("old", (), 0, NODE_ID, 4).check(bytes(64))


def test_codes_on_the_wire_are_rlp_integers_and_no_capability_has_the_base_ones() -> None:
    wire = [p2p.HELLO_BYTE, p2p.DISCONNECT_CODE, p2p.PING_CODE, p2p.PONG_CODE]
    assert [bytes([byte]) for byte in wire] == [oracle.encode(code) for code in (0, 1, 2, 3)]
    assert p2p.FIRST_CAPABILITY_CODE == 16


def test_what_geth_refuses_in_a_hellos_place_is_refused() -> None:
    cases = {case["expect"]: case for case in VECTORS["protocol_handshake_errors"] if case["code"] == p2p.HELLO_CODE}
    with pytest.raises(RlpError, match="a string where a list belongs"):
        Hello.decode(bytes.fromhex(cases["error: not a list"]["payload"]))
    too_big = oracle.encode(bytes(2050))
    assert len(too_big) == cases["error: too big"]["payload_length"]
    with pytest.raises(RlpError):
        Hello.decode(too_big)
    with pytest.raises(NullIdentityError) as caught:
        Hello.decode(bytes.fromhex(cases["disconnect reason 7 (node id is empty)"]["payload"]))
    assert caught.value.reason == 7
    assert len(cases) == 3


# -- Disconnect -------------------------------------------------------------------------------------------------------------

# What geth reads as its internal 255; reth takes a zero byte for reason zero, and so do we.
GETH_UNREADABLE = 255
READ_AS_ZERO = {"00", "c100"}


def of_geth(case: dict[str, int | str]) -> int | None:
    """The reason that a case of geth's decoder has here."""
    if case["payload"] in READ_AS_ZERO:
        return 0
    return None if case["reason"] == GETH_UNREADABLE else int(case["reason"])


SPELLINGS = [
    *[(case["payload"], case["reason"]) for case in VECTORS["disconnect_payload_accept"]],
    *[(case["payload"], of_geth(case)) for case in VECTORS["geth_decoder_computed_from_source"]],
    *[(payload, None) for payload in VECTORS["disconnect_payload_reject_reth"]],
]


@pytest.mark.parametrize(("payload", "reason"), SPELLINGS)
def test_every_published_spelling_of_a_disconnect_is_read(payload: str, reason: int | None) -> None:
    assert p2p.decode_disconnect(bytes.fromhex(payload)) == reason


@pytest.mark.parametrize(("payload", "reason"), SPELLINGS)
def test_after_hello_every_spelling_is_read_without_snappy(payload: str, reason: int | None) -> None:
    assert p2p.decode_disconnect_after_hello(bytes.fromhex(payload)) == reason


# Nothing, deflated, is the byte 00: a Disconnect of reason zero to whoever reads the plain form first, as reth does.
@pytest.mark.parametrize(("payload", "reason"), [case for case in SPELLINGS if case[0]])
def test_after_hello_every_spelling_is_read_with_snappy(payload: str, reason: int | None) -> None:
    assert p2p.decode_disconnect_after_hello(snappy.compress(bytes.fromhex(payload))) == reason


def test_a_disconnect_in_hellos_place_gives_its_reason() -> None:
    cases = [case for case in VECTORS["protocol_handshake_errors"] if case["code"] == p2p.DISCONNECT_CODE]
    assert [p2p.decode_disconnect(bytes.fromhex(case["payload"])) for case in cases] == [
        DisconnectReason.CLIENT_QUITTING
    ] * 2


@pytest.mark.parametrize("reason", DisconnectReason)
def test_our_disconnect_is_a_list_of_one_integer(reason: DisconnectReason) -> None:
    payload = p2p.encode_disconnect(reason)
    assert payload == oracle.encode([int(reason)])
    assert p2p.decode_disconnect(payload) is reason
    assert p2p.decode_disconnect_after_hello(p2p.deflate(payload)) is reason


def test_our_disconnect_after_hello_has_the_four_bytes_that_reth_sends() -> None:
    assert p2p.deflate(p2p.encode_disconnect(DisconnectReason.TOO_MANY_PEERS)) == bytes.fromhex("0204c104")


def test_the_reasons_are_those_of_the_specification() -> None:
    assert {int(number) for number in VECTORS["disconnect_reasons"]} == set(DisconnectReason)


@pytest.mark.parametrize(
    "payload", ["0c", "0f", "11", "7f", "c10c", "8180", "c28180", "c3820100", "c1c104", "c2c104", "ff", "f8"]
)
def test_a_reason_that_is_unknown_or_unreadable_is_none(payload: str) -> None:
    assert p2p.decode_disconnect(bytes.fromhex(payload)) is None


def test_a_disconnect_that_would_inflate_beyond_any_spelling_is_none() -> None:
    longest = oracle.encode([4, bytes(59)])
    assert len(longest) == 64
    assert p2p.decode_disconnect_after_hello(snappy.compress(longest)) is DisconnectReason.TOO_MANY_PEERS
    assert p2p.decode_disconnect_after_hello(snappy.compress(oracle.encode([4, bytes(60)]))) is None


@repeatable
@given(payload=st.binary(max_size=80))
def test_no_bytes_in_a_disconnect_raise(payload: bytes) -> None:
    known = {None, *DisconnectReason}
    assert p2p.decode_disconnect(payload) in known
    assert p2p.decode_disconnect_after_hello(payload) in known


# -- Snappy -----------------------------------------------------------------------------------------------------------------

BOMB = bytes.fromhex("ffffffff0f") + b"\x00\x00"


def test_seven_bytes_that_claim_four_gib_are_refused_before_anything_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(_block: bytes) -> bytes:
        raise AssertionError("asked to inflate what is over the limit")

    monkeypatch.setattr(cramjam.snappy, "decompress_raw", allocate)
    assert len(BOMB) == 7
    with pytest.raises(SnappyError, match="4294967295 bytes where 16777215 are allowed"):
        p2p.inflate(BOMB, p2p.MAX_PAYLOAD_BYTES)
    with pytest.raises(SnappyError, match="4294967295 bytes where 16777215 are allowed"):
        p2p.inflated_bytes(BOMB, p2p.MAX_PAYLOAD_BYTES)


@pytest.mark.parametrize("limit", [0, 1, 0x7F, 0x80, 1024, p2p.MAX_PAYLOAD_BYTES])
def test_a_length_may_reach_its_limit_and_no_further(limit: int) -> None:
    assert p2p.inflated_bytes(varint(limit), limit) == limit
    with pytest.raises(SnappyError):
        p2p.inflated_bytes(varint(limit + 1), limit)


@pytest.mark.parametrize(
    "payload", [b"", b"\x80", b"\xff\xff\xff\xff", b"\x80\x80\x80\x80\x80", b"\x80\x80\x80\x80\x80\x00", b"\xff" * 10]
)
def test_a_length_that_does_not_end_is_refused(payload: bytes) -> None:
    with pytest.raises(SnappyError, match="without a Snappy length"):
        p2p.inflate(payload, p2p.MAX_PAYLOAD_BYTES)


@pytest.mark.parametrize("length", ["05", "8500", "858000", "85808000", "8580808000"])
def test_a_length_with_idle_bytes_is_the_same_length(length: str) -> None:
    block = bytes.fromhex(length) + b"\x10hello"
    assert p2p.inflated_bytes(block, 5) == 5
    assert p2p.inflate(block, 5) == b"hello"
    with pytest.raises(SnappyError):
        p2p.inflate(block, 4)


@pytest.mark.parametrize(
    "block",
    [
        b"\x05",
        b"\x05\x10hell",
        b"\x05\x10hello!",
        b"\x04\x10hello",
        b"\x06\x10hello",
        b"\x05\x01\x00",
        b"\x08\x00a\x0d\x02",
        b"\x05\xf0",
        b"\x05\xfc\xff\xff\xff\xff",
        b"\x00\x00",
    ],
)
def test_a_block_that_is_not_what_its_length_says_is_refused(block: bytes) -> None:
    with pytest.raises(SnappyError, match="not Snappy"):
        p2p.inflate(block, 100)


def test_copies_within_a_block_are_followed() -> None:
    block = b"\x0a\x04ab\x11\x02"
    assert read_snappy(block) == b"ab" * 5
    assert p2p.inflate(block, 10) == b"ab" * 5


def test_nothing_deflates_to_one_byte_and_back() -> None:
    assert p2p.deflate(b"") == b"\x00"
    assert p2p.inflate(b"\x00", 0) == b""


@repeatable
@given(
    data=st.one_of(
        st.binary(max_size=300), st.builds(lambda part, times: part * times, st.binary(max_size=9), st.integers(0, 999))
    )
)
def test_deflating_loses_nothing_and_other_programs_read_it(data: bytes) -> None:
    block = p2p.deflate(data)
    assert p2p.inflated_bytes(block, len(data)) == len(data)
    assert read_snappy(block) == data
    assert p2p.inflate(block, len(data)) == data
    assert snappy.uncompress(block) == data
    assert p2p.inflate(snappy.compress(data), len(data)) == data


@repeatable
@given(data=st.binary(min_size=1, max_size=300))
def test_a_block_one_byte_over_its_limit_is_refused(data: bytes) -> None:
    with pytest.raises(SnappyError):
        p2p.inflate(snappy.compress(data), len(data) - 1)


@repeatable
@given(
    block=st.one_of(st.binary(max_size=60), st.builds(bytes.__add__, st.integers(0, 64).map(varint), st.binary(max_size=60)))
)
def test_garbage_inflates_to_what_it_announced_or_not_at_all(block: bytes) -> None:
    try:
        data = p2p.inflate(block, 64)
    except SnappyError:
        return
    assert len(data) == p2p.inflated_bytes(block, 64)
    assert data == read_snappy(block)


# -- Ping and Pong ----------------------------------------------------------------------------------------------------------


def test_the_payload_of_a_ping_is_the_empty_list_under_snappy() -> None:
    assert oracle.encode([]) == p2p.EMPTY_LIST
    assert p2p.deflate(p2p.EMPTY_LIST) == snappy.compress(b"\xc0") == p2p.SNAPPY_EMPTY_LIST
    p2p.check_ping_payload(p2p.deflate(p2p.EMPTY_LIST))


def test_a_ping_whose_snappy_is_spelt_otherwise_is_a_ping() -> None:
    p2p.check_ping_payload(bytes.fromhex("8100") + b"\x00\xc0")


@pytest.mark.parametrize("payload", [b"", b"\x80", b"\x00", b"\xc1"])
def test_a_ping_that_says_anything_else_is_malformed(payload: bytes) -> None:
    with pytest.raises(MessageError):
        p2p.check_ping_payload(snappy.compress(payload))


@pytest.mark.parametrize(
    "payload", [b"", b"\xc0", b"\x01", snappy.compress(b"\xc0\xc0"), snappy.compress(b"\xc1\x80"), BOMB]
)
def test_a_ping_that_is_longer_or_not_snappy_is_refused_by_its_length(payload: bytes) -> None:
    with pytest.raises(SnappyError):
        p2p.check_ping_payload(payload)


def take(bucket: PingBucket, times: int, *, now: float) -> int:
    """How many of so many pings at one moment pass."""
    for passed in range(times):
        try:
            bucket.take(now=now)
        except PingFloodError:
            return passed
    return times


def test_five_pings_pass_at_once_and_the_sixth_is_a_flood() -> None:
    bucket = PingBucket(now=100.0)
    assert take(bucket, 5, now=100.0) == 5
    with pytest.raises(PingFloodError) as caught:
        bucket.take(now=100.0)
    assert caught.value.reason is DisconnectReason.PROTOCOL_BREACH


def test_after_a_burst_one_ping_passes_each_second() -> None:
    bucket = PingBucket(now=0.0)
    assert take(bucket, 9, now=0.0) == 5
    assert [take(bucket, 9, now=now) for now in (0.5, 1.0, 1.5, 2.0, 4.5, 5.0, 5.5)] == [0, 1, 0, 1, 2, 1, 0]


def test_a_quiet_hour_saves_no_more_than_a_burst() -> None:
    bucket = PingBucket(now=0.0)
    assert take(bucket, 9, now=0.0) == 5
    assert take(bucket, 9, now=3600.0) == 5


def test_the_fraction_of_a_second_that_a_full_bucket_waited_is_lost() -> None:
    bucket = PingBucket(now=0.0)
    assert take(bucket, 9, now=0.75) == 5
    assert take(bucket, 9, now=1.0) == 0
    assert take(bucket, 9, now=1.75) == 1


def test_the_fraction_of_a_second_that_an_emptied_bucket_waited_is_kept() -> None:
    bucket = PingBucket(now=0.0)
    assert take(bucket, 9, now=0.0) == 5
    assert take(bucket, 9, now=1.75) == 1
    assert take(bucket, 9, now=2.0) == 1


@repeatable
@given(pauses=st.lists(st.integers(0, 24), max_size=60))
def test_the_bucket_is_the_one_that_reth_describes(pauses: list[int]) -> None:
    # In eighths of a second, so that nothing is rounded.
    tokens, refilled, now = 5, 0, 0
    bucket = PingBucket(now=0.0)
    passed_at: list[int] = []
    for pause in pauses:
        now += pause
        whole_seconds = (now - refilled) // 8
        tokens += whole_seconds
        refilled += 8 * whole_seconds
        if tokens >= 5:
            tokens, refilled = 5, now
        assert take(bucket, 1, now=now / 8) == min(tokens, 1)
        if tokens:
            tokens -= 1
            passed_at.append(now)
    for index, start in enumerate(passed_at):
        for count, end in enumerate(passed_at[index:], start=1):
            assert count <= 5 + (end - start) // 8 + 1
