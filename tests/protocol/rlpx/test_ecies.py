"""ECIES against published packets and a second implementation made of pycryptodome and coincurve."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import coincurve
import pytest
from Crypto.Cipher import AES
from Crypto.Hash import HMAC, SHA256
from Crypto.Util import Counter
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.errors import HandshakeError
from rlpx.protocol.native import NATIVE
from rlpx.protocol.rlpx import ecies
from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.entropy import scripted, seeded
from tests.twins import WAYS, run_by
from tests.vectors import load

VECTORS = load("ecies")
EIP8 = load("rlpx_eip8_handshake")
FIELD = 2**256 - 2**32 - 977
MAC_DATA = b"\x01\x23"

texts = st.binary(max_size=600)
short = st.binary(max_size=8)
seeds = st.binary(min_size=1, max_size=8)


@pytest.fixture(scope="module", params=WAYS, autouse=True)
def made_by(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of this file is run with both halves, which give the same."""
    yield from run_by(request.param, ecies, "encrypt", "decrypt")


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


# --- the second implementation


def oracle_kdf(shared: bytes, length: int) -> bytes:
    """NIST SP 800-56 concatenation KDF with SHA-256."""
    blocks = [hashlib.sha256(number.to_bytes(4, "big") + shared).digest() for number in range(1, length // 32 + 2)]
    return b"".join(blocks)[:length]


def oracle_transform(key: bytes, initial: bytes, text: bytes) -> bytes:
    counter = Counter.new(128, initial_value=int.from_bytes(initial, "big"), allow_wraparound=True)
    return bytes(AES.new(key, AES.MODE_CTR, counter=counter).encrypt(text))


def oracle_keys(secret: bytes, public: bytes) -> tuple[bytes, bytes]:
    shared = coincurve.PublicKey(b"\x04" + public).multiply(secret).format(compressed=False)[1:33]
    derived = oracle_kdf(shared, 32)
    return derived[:16], SHA256.new(derived[16:]).digest()


def oracle_seal(text: bytes, recipient: bytes, mac_data: bytes, draw: Callable[[int], bytes]) -> bytes:
    ephemeral = coincurve.PrivateKey(draw(32))
    encryption_key, mac_key = oracle_keys(ephemeral.secret, recipient)
    initial = draw(16)
    ciphertext = oracle_transform(encryption_key, initial, text)
    tag = HMAC.new(mac_key, initial + ciphertext + mac_data, SHA256).digest()
    return ephemeral.public_key.format(compressed=False) + initial + ciphertext + bytes(tag)


def oracle_open(sealed: bytes, secret: bytes, mac_data: bytes) -> bytes:
    encryption_key, mac_key = oracle_keys(secret, sealed[1:65])
    HMAC.new(mac_key, sealed[65:-32] + mac_data, SHA256).verify(sealed[-32:])
    return oracle_transform(encryption_key, sealed[65:81], sealed[81:-32])


@pytest.mark.parametrize("case", VECTORS["kdf"], ids=lambda case: str(case["length"]))
def test_the_second_implementation_derives_the_keys_of_geth(case: dict[str, Any]) -> None:
    assert oracle_kdf(unhex(case["shared_hex"]), case["length"]).hex() == case["output"]


# --- what a good packet gives


KEY = PrivateKey(unhex(VECTORS["box_computed"]["recipient_private"]))
STRANGER = PrivateKey(unhex(VECTORS["box"]["private_1"]))


def test_the_box_is_sealed_byte_for_byte_and_opened() -> None:
    box = VECTORS["box_computed"]
    message, sealed = unhex(box["message"]), unhex(box["ciphertext"])
    entropy = scripted([unhex(box["ephemeral_private"]), unhex(box["iv"])])
    assert ecies.seal(message, KEY.point, unhex(box["shared_info_2"]), entropy) == sealed
    assert ecies.open_(sealed, KEY, b"") == message
    assert oracle_open(sealed, KEY.secret, b"") == message


@pytest.mark.parametrize("packet", EIP8["packets"], ids=lambda packet: packet["name"])
def test_the_packets_of_eip_8_open(packet: dict[str, Any]) -> None:
    key = PrivateKey(unhex(EIP8["keys"][packet["decrypt_with"]]))
    sealed = unhex(packet["packet"])
    assert ecies.open_(sealed[2:], key, sealed[:2]).hex() == packet["plaintext_rlp"] + packet["padding_hex"]


@pytest.mark.parametrize("packet", EIP8["legacy_packets"], ids=lambda packet: packet["name"])
def test_a_packet_from_before_eip_8_is_the_same_ecies_without_mac_data(packet: dict[str, Any]) -> None:
    key = PrivateKey(unhex(EIP8["keys"][packet["decrypt_with"]]))
    assert ecies.open_(unhex(packet["packet"]), key, b"").hex() == packet["plaintext"]


@given(text=texts, mac_data=short, seed=seeds)
def test_what_is_sealed_is_what_the_second_implementation_seals_and_opens(text: bytes, mac_data: bytes, seed: bytes) -> None:
    key = PrivateKey.generate(seeded(b"key" + seed))
    sealed = ecies.seal(text, key.point, mac_data, seeded(seed))
    assert sealed == oracle_seal(text, key.id, mac_data, seeded(seed))
    assert oracle_open(sealed, key.secret, mac_data) == text
    assert ecies.open_(sealed, key, mac_data) == text
    assert len(sealed) == len(text) + ecies.OVERHEAD_BYTES == len(text) + 113


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 65_536])
def test_a_text_of_any_size_comes_back(size: int) -> None:
    text = bytes(range(256)) * 256
    sealed = ecies.seal(text[:size], KEY.point, MAC_DATA, seeded(b"size"))
    assert ecies.open_(sealed, KEY, MAC_DATA) == text[:size]


def test_each_message_has_its_own_ephemeral_key_and_iv() -> None:
    entropy = seeded(b"twice")
    first, second = (ecies.seal(b"the same text", KEY.point, MAC_DATA, entropy) for _ in range(2))
    assert first[:65] != second[:65]
    assert first[65:81] != second[65:81]
    assert first[81:] != second[81:]


# --- what is refused, each time with exactly the one class


def refuse(sealed: bytes, key: PrivateKey = KEY, mac_data: bytes = MAC_DATA) -> str:
    """The message is refused. Gives the words of the error, for our eyes only."""
    with pytest.raises(HandshakeError) as caught:
        ecies.open_(sealed, key, mac_data)
    assert caught.type is HandshakeError
    assert caught.value.reason is None
    return str(caught.value)


SEALED = ecies.seal(b"Hello, world.", KEY.point, MAC_DATA, seeded(b"sealed"))


def test_the_message_that_the_following_tests_spoil_is_good() -> None:
    assert ecies.open_(SEALED, KEY, MAC_DATA) == b"Hello, world."


def test_a_message_to_somebody_else_is_refused() -> None:
    refuse(SEALED, key=STRANGER)
    refuse(unhex(VECTORS["box_computed"]["ciphertext"]), key=STRANGER, mac_data=b"")


@pytest.mark.parametrize("mac_data", [b"", b"\x01", b"\x01\x22", b"\x01\x23\x00", b"\x23\x01"])
def test_a_message_with_other_mac_data_is_refused(mac_data: bytes) -> None:
    assert "wrong tag" in refuse(SEALED, mac_data=mac_data)


def test_every_flipped_bit_is_refused() -> None:
    for position in range(len(SEALED) * 8):
        spoiled = bytearray(SEALED)
        spoiled[position // 8] ^= 1 << position % 8
        refuse(bytes(spoiled))


def test_every_truncation_is_refused() -> None:
    words = [refuse(SEALED[:end]) for end in range(len(SEALED))]
    # Below 113 bytes nothing is sliced; from there on the tag is wrong.
    assert words == ["not an ECIES message"] * 113 + ["an ECIES message with a wrong tag"] * 13


@given(rest=st.binary(min_size=1, max_size=40))
def test_bytes_after_the_tag_are_refused(rest: bytes) -> None:
    assert "wrong tag" in refuse(SEALED + rest)


@given(data=st.binary(max_size=300) | st.binary(min_size=112, max_size=300).map(lambda data: b"\x04" + data))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    refuse(data)


@pytest.mark.parametrize("first", VECTORS["invalid_first_byte_values"])
def test_another_form_of_the_point_is_refused(first: int) -> None:
    assert refuse(bytes([first]) + SEALED[1:]) == "not an ECIES message"


def test_a_hybrid_point_is_refused_though_it_is_on_the_curve() -> None:
    first = 6 + (SEALED[64] & 1)
    hybrid = bytes([first]) + SEALED[1:]
    # libsecp256k1 takes this form; the tag does not cover it.
    assert coincurve.PublicKey(hybrid[:65]).format(compressed=False) == SEALED[:65]
    assert refuse(hybrid) == "not an ECIES message"


def test_a_compressed_point_is_refused() -> None:
    compressed = coincurve.PublicKey(SEALED[:65]).format(compressed=True)
    refuse(compressed + SEALED[65:])
    refuse(compressed + SEALED[33:])


def test_the_invalid_point_of_geths_proof_of_concept_is_refused() -> None:
    packet = unhex(EIP8["packets"][0]["packet"])
    key = PrivateKey(unhex(EIP8["keys"]["static_key_B"]))
    ecies.open_(packet[2:], key, packet[:2])
    spoiled = b"\x04" + bytes(64) + packet[2 + 65 :]
    assert "not on the curve" in refuse(spoiled, key=key, mac_data=packet[:2])


@pytest.mark.parametrize(
    "point",
    [
        b"\xff" * 64,
        bytes(31) + b"\x01" + bytes(31) + b"\x01",
        FIELD.to_bytes(32, "big") * 2,
        SEALED[1:64] + bytes([SEALED[64] ^ 1]),
        SEALED[33:65] + SEALED[1:33],
    ],
    ids=["ones", "(1,1)", "x = y = p", "y off by a bit", "x and y exchanged"],
)
def test_a_point_off_the_curve_is_refused_before_any_key_is_derived(point: bytes) -> None:
    assert "not on the curve" in refuse(b"\x04" + point + SEALED[65:])


# --- what compiled code is given


@pytest.mark.parametrize(
    "arguments",
    [(b"s" * 32, b"i" * 15, b"text", b""), (b"s" * 32, b"i" * 17, b"text", b""), (b"s" * 32, b"i" * 16, bytes(2**24), b"")],
)
def test_compiled_encryption_takes_an_iv_and_a_packet(arguments: tuple[bytes, bytes, bytes, bytes]) -> None:
    if NATIVE is None:
        pytest.skip("nothing is compiled")
    with pytest.raises(ValueError, match="an IV of 16 bytes"):
        NATIVE.ecies_encrypt(*arguments)


@pytest.mark.parametrize("size", [0, 47, 2**24])
def test_compiled_decryption_takes_a_packet(size: int) -> None:
    if NATIVE is None:
        pytest.skip("nothing is compiled")
    with pytest.raises(ValueError, match="an IV of 16 bytes"):
        NATIVE.ecies_decrypt(b"s" * 32, bytes(size), b"")


@given(shared=st.binary(min_size=32, max_size=32), iv=st.binary(min_size=16, max_size=16), text=texts, mac_data=short)
def test_both_halves_give_the_same(shared: bytes, iv: bytes, text: bytes, mac_data: bytes) -> None:
    sealed = ecies.python_encrypt(shared, iv, text, mac_data)
    assert ecies.encrypt(shared, iv, text, mac_data) == sealed
    assert ecies.decrypt(shared, sealed, mac_data) == ecies.python_decrypt(shared, sealed, mac_data) == text
    for at in range(0, len(sealed), 7):
        spoiled = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        assert ecies.decrypt(shared, spoiled, mac_data) is ecies.python_decrypt(shared, spoiled, mac_data) is None
    assert ecies.decrypt(shared, sealed, mac_data + b"x") is None
