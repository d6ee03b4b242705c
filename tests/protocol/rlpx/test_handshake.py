"""Auth and ack for both roles: EIP-8's own packets, and everything that is not a valid one."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import rlp as library
from Crypto.Hash import keccak
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.errors import HandshakeError
from rlpx.protocol.rlpx import ecies
from rlpx.protocol.rlpx.crypto import PrivateKey, recover
from rlpx.protocol.rlpx.handshake import (
    MAX_PACKET_BYTES,
    HandshakeReader,
    Initiator,
    Recipient,
    Secrets,
    is_old_form,
    packet_end,
    packet_size,
)
from tests.entropy import scripted, seeded
from tests.vectors import load

VECTORS = load("rlpx_eip8_handshake")
LEGACY = load("rlpx_legacy_handshake")["values"]
DERIVATION = VECTORS["derivation"]
KEYS = {name: bytes.fromhex(value) for name, value in VECTORS["keys"].items()}
PACKETS = {packet["name"]: bytes.fromhex(packet["packet"]) for packet in VECTORS["packets"]}
A = PrivateKey(KEYS["static_key_A"])
B = PrivateKey(KEYS["static_key_B"])
STRANGER = PrivateKey(b"\x11" * 32)
FIELD = 2**256 - 2**32 - 977

COMBINATIONS = list(itertools.product(("auth2", "auth3"), ("ack2", "ack3")))
GOOD_AUTH = [KEYS["auth_signature"], A.id, KEYS["nonce_A"], b"\x04"]
GOOD_ACK = [KEYS["ephemeral_pub_B"], KEYS["nonce_B"], b"\x04"]
# What the ECIES of a packet draws: an ephemeral key and an IV.
ENVELOPE = [b"\x22" * 32, b"\x33" * 16]


def initiator(padding: bytes = bytes(2)) -> Initiator:
    """The A of EIP-8."""
    return Initiator(A, B.id, scripted([KEYS["ephemeral_key_A"], KEYS["nonce_A"], padding, *ENVELOPE]))


def recipient(packet: bytes, padding: bytes = bytes(2)) -> Recipient:
    """The B of EIP-8."""
    return Recipient(packet, B, scripted([KEYS["ephemeral_key_B"], KEYS["nonce_B"], padding, *ENVELOPE]))


def sealed(plaintext: bytes, recipient: PrivateKey) -> bytes:
    """A packet around any plaintext."""
    prefix = (len(plaintext) + 113).to_bytes(2, "big")
    return prefix + ecies.seal(plaintext, recipient.point, prefix, scripted(ENVELOPE))


def auth_of(fields: Any, rest: bytes = bytes(100)) -> bytes:
    return sealed(bytes(library.encode(fields)) + rest, B)


def ack_of(fields: Any, rest: bytes = bytes(100)) -> bytes:
    return sealed(bytes(library.encode(fields)) + rest, A)


def refuse_auth(packet: bytes, key: PrivateKey = B) -> str:
    """The auth is refused without a draw of entropy. Gives the words of the error, for our eyes only."""
    with pytest.raises(HandshakeError) as caught:
        Recipient(packet, key, scripted([]))
    assert caught.type is HandshakeError
    assert caught.value.reason is None
    return str(caught.value)


def refuse_ack(packet: bytes) -> str:
    """The ack is refused. Gives the words of the error, for our eyes only."""
    with pytest.raises(HandshakeError) as caught:
        initiator().open_ack(packet)
    assert caught.type is HandshakeError
    assert caught.value.reason is None
    return str(caught.value)


def spec_keccak(data: bytes) -> bytes:
    return bytes(keccak.new(digest_bits=256, data=data).digest())


def spec_xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def insist_on_published(secrets: Secrets) -> None:
    assert secrets.aes.hex() == DERIVATION["aes_secret"]
    assert secrets.mac.hex() == DERIVATION["mac_secret"]


# --- the packets of EIP-8


@pytest.mark.parametrize("name", ["auth2", "auth3"])
def test_the_responder_opens_the_auths_of_eip_8(name: str) -> None:
    made = recipient(PACKETS[name])
    assert made.peer.id == KEYS["static_pub_A"]
    insist_on_published(made.secrets)


@pytest.mark.parametrize("name", ["ack2", "ack3"])
def test_the_initiator_opens_the_acks_of_eip_8(name: str) -> None:
    insist_on_published(initiator().open_ack(PACKETS[name]))


@pytest.mark.parametrize(("auth", "ack"), COMBINATIONS)
def test_the_macs_start_as_published(auth: str, ack: str) -> None:
    digests = DERIVATION["computed_initial_mac_digests"][f"{auth}+{ack}"]
    assert spec_keccak(recipient(PACKETS[auth]).secrets.ingress_seed).hex() == digests["initiator_egress_initial_digest"]
    assert spec_keccak(initiator().open_ack(PACKETS[ack]).ingress_seed).hex() == digests["initiator_ingress_initial_digest"]


def test_the_ingress_mac_of_the_recipient_after_foo() -> None:
    absorbed = recipient(PACKETS["auth2"]).secrets.ingress_seed + bytes.fromhex(DERIVATION["foo_hex"])
    assert spec_keccak(absorbed).hex() == DERIVATION["recipient_ingress_mac_after_foo"]


@pytest.mark.parametrize("auth", ["auth2", "auth3"])
def test_the_responders_own_mac_starts_from_the_ack_that_it_sends(auth: str) -> None:
    made = recipient(PACKETS[auth])
    seed = spec_xor(bytes.fromhex(DERIVATION["mac_secret"]), KEYS["nonce_A"])
    assert made.secrets.egress_seed == seed + made.ack


@pytest.mark.parametrize("ack", ["ack2", "ack3"])
def test_the_initiators_own_mac_starts_from_the_auth_that_it_sent(ack: str) -> None:
    side = initiator()
    seed = spec_xor(bytes.fromhex(DERIVATION["mac_secret"]), KEYS["nonce_B"])
    assert side.open_ack(PACKETS[ack]).egress_seed == seed + side.auth


@pytest.mark.parametrize("packet", VECTORS["legacy_packets"], ids=lambda packet: packet["name"])
def test_a_packet_from_before_eip_8_is_refused(packet: dict[str, Any]) -> None:
    data = bytes.fromhex(packet["packet"])
    words = refuse_auth(data) if packet["kind"] == "auth" else refuse_ack(data)
    assert words == "a handshake packet whose size prefix is wrong"


def test_the_secrets_of_the_published_legacy_session() -> None:
    initiator_key = PrivateKey(bytes.fromhex(LEGACY["initiator_private_key"]))
    receiver_key = PrivateKey(bytes.fromhex(LEGACY["receiver_private_key"]))
    auth, ack = bytes.fromhex(LEGACY["auth_plaintext"]), bytes.fromhex(LEGACY["authresp_plaintext"])
    # signature (65) ‖ hash of the ephemeral key (32) ‖ id (64) ‖ nonce (32) ‖ 0
    packet = sealed(library.encode([auth[:65], auth[97:161], auth[161:193], b"\x04"]), receiver_key)
    nonce = bytes.fromhex(LEGACY["receiver_nonce"])
    draws = [bytes.fromhex(LEGACY["receiver_ephemeral_private_key"]), nonce, bytes(2), *ENVELOPE]
    receiver = Recipient(packet, receiver_key, scripted(draws))
    # ephemeral key (64) ‖ nonce (32) ‖ 0
    answer = sealed(library.encode([ack[:64], ack[64:96], b"\x04"]), initiator_key)
    nonce = bytes.fromhex(LEGACY["initiator_nonce"])
    draws = [bytes.fromhex(LEGACY["initiator_ephemeral_private_key"]), nonce, bytes(2), *ENVELOPE]
    side = Initiator(initiator_key, receiver_key.id, scripted(draws))
    for secrets in (receiver.secrets, side.open_ack(answer)):
        assert secrets.aes.hex() == LEGACY["aes_secret"]
        assert secrets.mac.hex() == LEGACY["mac_secret"]


# --- what we send


def test_the_auth_says_who_we_are_and_proves_the_ephemeral_key() -> None:
    side = initiator()
    assert side.peer.id == B.id
    size = packet_size(side.auth[:2])
    assert size == len(side.auth) - 2
    plaintext = ecies.open_(side.auth[2:], B, side.auth[:2])
    signature, node_id, nonce, version = library.decode(plaintext, strict=False)
    assert (node_id, nonce, version) == (KEYS["static_pub_A"], KEYS["nonce_A"], b"\x04")
    digest = spec_xor(bytes.fromhex(DERIVATION["static_shared_secret"]), nonce)
    assert recover(digest, signature).id == KEYS["ephemeral_pub_A"]


@pytest.mark.parametrize("auth", ["auth2", "auth3"])
def test_the_ack_carries_the_ephemeral_key_and_the_nonce(auth: str) -> None:
    ack = recipient(PACKETS[auth]).ack
    assert packet_size(ack[:2]) == len(ack) - 2
    plaintext = ecies.open_(ack[2:], A, ack[:2])
    assert library.decode(plaintext, strict=False) == [KEYS["ephemeral_pub_B"], KEYS["nonce_B"], b"\x04"]


@pytest.mark.parametrize("packet", PACKETS.values(), ids=PACKETS)
def test_where_a_packet_ends_is_known_from_its_first_bytes(packet: bytes) -> None:
    if packet[0] == 0x04:
        with pytest.raises(HandshakeError, match="in the form before EIP-8"):
            packet_end(packet)
        assert is_old_form(packet)
    else:
        assert packet_end(packet[:2]) == packet_end(packet[:3]) == packet_end(packet) == len(packet)
        assert not is_old_form(packet)
        with pytest.raises(HandshakeError, match="starts with no point"):
            packet_end(packet[:2] + b"\x06")


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"GE", "HTTP in place of a handshake packet"),
        (b"HT", "HTTP in place of a handshake packet"),
        (b"SS", "SSH in place of a handshake packet"),
        (b"\x16\x03", "TLS in place of a handshake packet"),
        (b"\r\n", "a PROXY protocol header in place of a handshake packet"),
        (b"PR", "a PROXY protocol header"),
        (b"XX", "a handshake packet of 22616 bytes"),
    ],
)
def test_what_is_no_packet_is_named_by_its_first_two_bytes(start: bytes, words: str) -> None:
    with pytest.raises(HandshakeError) as caught:
        packet_end(start)
    assert str(caught.value).startswith(words)
    assert not is_old_form(start)


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 100])
def test_a_packet_is_read_in_whatever_pieces_it_arrives(piece_bytes: int) -> None:
    reader, packet = HandshakeReader(), PACKETS["auth2"]
    pieces = [packet[start : start + piece_bytes] for start in range(0, len(packet), piece_bytes)]
    for number, piece in enumerate(pieces[:-1], start=1):
        assert reader.feed(piece) is None
        assert reader.buffered_bytes == number * piece_bytes
    assert reader.feed(pieces[-1] + b"frames") == (packet, b"frames")
    assert reader.buffered_bytes == 0


def test_a_reader_knows_a_packet_of_old_and_keeps_nothing_when_it_is_cleared() -> None:
    reader = HandshakeReader()
    with pytest.raises(HandshakeError):
        reader.feed(b"\x04" + bytes(306))
    assert reader.is_old_form
    reader.clear()
    assert (reader.buffered_bytes, reader.is_old_form) == (0, False)


def test_nothing_is_no_packet_of_old() -> None:
    assert not is_old_form(b"")


def paddings(draw: bytes) -> list[bytes]:
    """What stands behind the list in our auth and in our ack."""
    auth, ack = initiator(draw).auth, recipient(PACKETS["auth2"], draw).ack
    plaintexts = [ecies.open_(auth[2:], B, auth[:2]), ecies.open_(ack[2:], A, ack[:2])]
    return [text[len(library.encode(library.decode(text, strict=False))) :] for text in plaintexts]


@pytest.mark.parametrize(("draw", "length"), [(0, 100), (1, 101), (99, 199), (100, 100), (199, 199), (65_535, 135)])
def test_the_padding_follows_the_draw(draw: int, length: int) -> None:
    assert paddings(draw.to_bytes(2, "big")) == [bytes(length)] * 2


@given(draw=st.binary(min_size=2, max_size=2))
def test_the_padding_has_100_to_199_bytes(draw: bytes) -> None:
    assert all(100 <= len(padding) <= 199 for padding in paddings(draw))


def test_the_padding_differs_from_session_to_session() -> None:
    sides = [Initiator(A, B.id, seeded(b"%d" % number)) for number in range(60)]
    assert len({len(side.auth) for side in sides}) > 20
    acks = [Recipient(PACKETS["auth2"], B, seeded(b"%d" % number)).ack for number in range(60)]
    assert len({len(ack) for ack in acks}) > 20


def test_a_second_session_of_the_same_nodes_shares_nothing_with_the_first() -> None:
    entropy = seeded(b"one source")
    first, second = Initiator(A, B.id, entropy), Initiator(A, B.id, entropy)
    opened = [library.decode(ecies.open_(side.auth[2:], B, side.auth[:2]), strict=False) for side in (first, second)]
    assert opened[0][0] != opened[1][0]
    assert opened[0][2] != opened[1][2]
    answers = [Recipient(side.auth, B, entropy) for side in (first, second)]
    assert len({answer.secrets.aes for answer in answers} | {answer.secrets.mac for answer in answers}) == 4
    # The ack of one session does not lead to the secrets of another.
    assert first.open_ack(answers[1].ack).aes not in {answer.secrets.aes for answer in answers}


@pytest.mark.parametrize("peer_id", [bytes(64), b"\xff" * 64, B.id[:63], b"\x04" + B.id], ids=["0", "ff", "short", "long"])
def test_an_id_that_is_no_point_is_not_dialled(peer_id: bytes) -> None:
    with pytest.raises(HandshakeError):
        Initiator(A, peer_id, seeded(b"nobody"))


# --- both roles together


@given(seeds=st.tuples(*[st.binary(max_size=6)] * 3))
def test_both_sides_always_agree(seeds: tuple[bytes, bytes, bytes]) -> None:
    keys, ours, theirs = seeds
    draw = seeded(b"keys" + keys)
    dialler, listener = PrivateKey.generate(draw), PrivateKey.generate(draw)
    side = Initiator(dialler, listener.id, seeded(b"dials" + ours))
    other = Recipient(side.auth, listener, seeded(b"listens" + theirs))
    secrets = side.open_ack(other.ack)
    assert (side.peer.id, other.peer.id) == (listener.id, dialler.id)
    assert (secrets.aes, secrets.mac) == (other.secrets.aes, other.secrets.mac)
    assert secrets.aes != secrets.mac
    assert len(secrets.aes) == len(secrets.mac) == 32
    assert secrets.egress_seed == other.secrets.ingress_seed
    assert secrets.ingress_seed == other.secrets.egress_seed
    assert secrets.ingress_seed != secrets.egress_seed


@given(seed=st.binary(max_size=6))
def test_a_dialler_who_expects_another_key_is_refused(seed: bytes) -> None:
    side = Initiator(A, STRANGER.id, seeded(seed))
    assert "wrong tag" in refuse_auth(side.auth)


def test_a_packet_does_not_pass_for_the_other_kind() -> None:
    refuse_auth(PACKETS["ack2"], key=A)
    side = Initiator(B, A.id, seeded(b"reflected"))
    assert "not RLP" in refuse_ack(side.auth)


def test_the_ack_to_somebody_else_is_refused() -> None:
    auth = Initiator(STRANGER, B.id, seeded(b"stranger")).auth
    assert "wrong tag" in refuse_ack(Recipient(auth, B, seeded(b"answer")).ack)


# --- sizes


@pytest.mark.parametrize("size", [113, 114, 300, 2047, 2048])
def test_a_size_within_the_bounds_is_told(size: int) -> None:
    assert packet_size(size.to_bytes(2, "big")) == size


@pytest.mark.parametrize("size", [0, 1, 112, 2049, 65_535])
def test_a_size_outside_the_bounds_is_refused_before_anything_is_sliced(size: int) -> None:
    prefix = size.to_bytes(2, "big")
    words = f"a handshake packet of {size} bytes"
    with pytest.raises(HandshakeError, match=words):
        packet_size(prefix)
    for packet in (prefix, prefix + b"\x04", prefix + b"\x04" + bytes(size), prefix + bytes(size)):
        assert refuse_auth(packet) == words
        assert refuse_ack(packet) == words


@pytest.mark.parametrize("packet", [b"", b"\x00", b"\x01", b"\x71"])
def test_less_than_a_size_is_refused(packet: bytes) -> None:
    refuse_auth(packet)
    refuse_ack(packet)


def test_the_greatest_packet_is_taken_and_a_greater_one_is_not() -> None:
    auth, ack = len(library.encode(GOOD_AUTH)), len(library.encode(GOOD_ACK))
    room = MAX_PACKET_BYTES - 113
    insist_on_published(recipient(auth_of(GOOD_AUTH, bytes(room - auth))).secrets)
    insist_on_published(initiator().open_ack(ack_of(GOOD_ACK, bytes(room - ack))))
    assert refuse_auth(auth_of(GOOD_AUTH, bytes(room - auth + 1))) == "a handshake packet of 2049 bytes"
    assert refuse_ack(ack_of(GOOD_ACK, bytes(room - ack + 1))) == "a handshake packet of 2049 bytes"


@pytest.mark.parametrize("name", PACKETS)
def test_a_packet_cut_anywhere_is_refused(name: str) -> None:
    refuse = refuse_auth if name.startswith("auth") else refuse_ack
    packet = PACKETS[name]
    for end in range(len(packet)):
        refuse(packet[:end])
        # Also where the prefix is made to match: it is authenticated.
        refuse((max(end - 2, 0)).to_bytes(2, "big") + packet[2:end])


@pytest.mark.parametrize("name", PACKETS)
@pytest.mark.parametrize("rest", [b"\x00", bytes(16)])
def test_a_packet_with_more_behind_it_is_refused(name: str, rest: bytes) -> None:
    refuse = refuse_auth if name.startswith("auth") else refuse_ack
    packet = PACKETS[name] + rest
    assert "size prefix is wrong" in refuse(packet)
    assert "wrong tag" in refuse((len(packet) - 2).to_bytes(2, "big") + packet[2:])


@pytest.mark.parametrize("name", ["auth2", "ack2"])
def test_a_packet_with_any_bit_flipped_is_refused(name: str) -> None:
    refuse = refuse_auth if name.startswith("auth") else refuse_ack
    for position in range(len(PACKETS[name]) * 8):
        spoiled = bytearray(PACKETS[name])
        spoiled[position // 8] ^= 1 << position % 8
        refuse(bytes(spoiled))


@given(
    data=st.binary(max_size=200)
    | st.binary(min_size=113, max_size=300).map(lambda data: len(data).to_bytes(2, "big") + data)
)
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    refuse_auth(data)
    refuse_ack(data)


# --- what stands inside


@pytest.mark.parametrize("version", [b"", b"\x04", b"\x05", b"\xff", b"\x01" + bytes(8)])
def test_the_version_of_the_peer_is_not_compared(version: bytes) -> None:
    insist_on_published(recipient(auth_of([*GOOD_AUTH[:3], version])).secrets)
    insist_on_published(initiator().open_ack(ack_of([*GOOD_ACK[:2], version])))


@given(
    more=st.lists(st.recursive(st.binary(max_size=8), lambda inner: st.lists(inner, max_size=3), max_leaves=3), max_size=8),
    rest=st.binary(max_size=300),
)
def test_further_elements_and_bytes_behind_the_list_are_ignored(more: list[Any], rest: bytes) -> None:
    insist_on_published(recipient(auth_of([*GOOD_AUTH, *more], rest)).secrets)
    insist_on_published(initiator().open_ack(ack_of([*GOOD_ACK, *more], rest)))


@pytest.mark.parametrize("count", range(4))
def test_an_auth_with_too_few_fields_is_refused(count: int) -> None:
    assert refuse_auth(auth_of(GOOD_AUTH[:count])) == "a handshake packet with too few fields"


@pytest.mark.parametrize("count", range(3))
def test_an_ack_with_too_few_fields_is_refused(count: int) -> None:
    assert refuse_ack(ack_of(GOOD_ACK[:count])) == "a handshake packet with too few fields"


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize(
    "change", [lambda field: field[:-1], lambda field: field + b"\0", lambda _: b"", lambda field: [field]]
)
def test_an_auth_with_a_field_of_another_length_is_refused(at: int, change: Any) -> None:
    fields: list[Any] = list(GOOD_AUTH)
    fields[at] = change(fields[at])
    refuse_auth(auth_of(fields))


@pytest.mark.parametrize("at", range(2))
@pytest.mark.parametrize(
    "change", [lambda field: field[:-1], lambda field: field + b"\0", lambda _: b"", lambda field: [field]]
)
def test_an_ack_with_a_field_of_another_length_is_refused(at: int, change: Any) -> None:
    fields: list[Any] = list(GOOD_ACK)
    fields[at] = change(fields[at])
    refuse_ack(ack_of(fields))


@pytest.mark.parametrize(
    "plaintext",
    [
        bytes(200),
        b"\xff" * 200,
        b"\x83dog" + bytes(200),
        b"\xb8\x41" + bytes(200),
        b"\xc3\x81\x00\x00" + bytes(200),
        b"\xf8\x10" + bytes(200),
        library.encode([*GOOD_AUTH, bytes(100)])[:-1],
        b"\xd1" * 17 + b"\xc0" + bytes(200),
        b"\xf8\xc8" + b"\xc0" * 200,
    ],
    ids=["zeros", "ones", "a string", "a long string", "not canonical", "size", "cut", "cut lists", "200 items"],
)
def test_what_is_not_a_list_of_fields_is_refused(plaintext: bytes) -> None:
    assert refuse_auth(sealed(plaintext, B)) == "a handshake packet that is not RLP"
    assert refuse_ack(sealed(plaintext, A)) == "a handshake packet that is not RLP"


@pytest.mark.parametrize("plaintext", [b"", bytes(100), library.encode(GOOD_ACK)[:-1]], ids=["empty", "zeros", "cut"])
def test_what_is_too_short_for_its_fields_is_refused(plaintext: bytes) -> None:
    assert refuse_auth(sealed(plaintext, B)) == "a handshake packet with too few fields"
    assert refuse_ack(sealed(plaintext, A)) == "a handshake packet with too few fields"


def test_what_is_too_short_for_its_fields_costs_no_work_on_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody can send one: it is refused before the shared secret is computed."""

    def never(_key: PrivateKey, _point: object) -> bytes:
        raise AssertionError("an ECDH for a packet that nothing can be in")

    auth, ack = sealed(library.encode(GOOD_AUTH)[:-1], B), sealed(library.encode(GOOD_ACK)[:-1], A)
    begun = initiator()
    monkeypatch.setattr(PrivateKey, "ecdh", never)
    assert refuse_auth(auth) == "a handshake packet with too few fields"
    with pytest.raises(HandshakeError, match="too few fields"):
        begun.open_ack(ack)


def test_the_elements_behind_the_fields_are_bounded() -> None:
    # The list itself is an item.
    insist_on_published(recipient(auth_of([*GOOD_AUTH, *[b""] * 59])).secrets)
    assert "not RLP" in refuse_auth(auth_of([*GOOD_AUTH, *[b""] * 60]))


@pytest.mark.parametrize(
    "point",
    [
        bytes(64),
        b"\xff" * 64,
        bytes(31) + b"\x01" + bytes(31) + b"\x01",
        FIELD.to_bytes(32, "big") * 2,
        A.id[:63] + bytes([A.id[63] ^ 1]),
    ],
    ids=["zeros", "ones", "(1,1)", "x = y = p", "y off by a bit"],
)
def test_a_point_off_the_curve_is_refused(point: bytes) -> None:
    assert "not on the curve" in refuse_ack(ack_of([point, *GOOD_ACK[1:]]))
    assert "not on the curve" in refuse_auth(auth_of([GOOD_AUTH[0], point, *GOOD_AUTH[2:]]))


@pytest.mark.parametrize(
    "signature",
    [
        bytes(65),
        b"\xff" * 65,
        b"\xff" * 64 + b"\x00",
        GOOD_AUTH[0][:64] + b"\x04",
        GOOD_AUTH[0][:64] + b"\x1b",
        bytes(32) + GOOD_AUTH[0][32:],
        GOOD_AUTH[0][:32] + bytes(32) + b"\x00",
    ],
    ids=["zeros", "ones", "out of range", "recovery 4", "recovery 27", "r zero", "s zero"],
)
def test_a_signature_of_nobody_is_refused(signature: bytes) -> None:
    assert "signature" in refuse_auth(auth_of([signature, *GOOD_AUTH[1:]]))


@pytest.mark.parametrize("at", [0, 1, 2], ids=["signature", "id", "nonce"])
def test_a_field_of_another_session_leads_to_secrets_that_the_peer_has_not(at: int) -> None:
    fields = list(GOOD_AUTH)
    fields[at] = [STRANGER.sign(KEYS["nonce_B"]), STRANGER.id, KEYS["nonce_B"]][at]
    made = recipient(auth_of(fields))
    assert made.peer.id == fields[1]
    assert made.secrets.aes.hex() != DERIVATION["aes_secret"]
    assert made.secrets.mac.hex() != DERIVATION["mac_secret"]
