"""Keys, points and digests, compared with coincurve's high-level API, pycryptodome and published values."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from typing import Any

import coincurve
import pytest
from coincurve._libsecp256k1 import ffi
from Crypto.Cipher import AES
from Crypto.Hash import keccak
from Crypto.Util import Counter
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.errors import HandshakeError, UsageError
from rlpx.protocol.native import NATIVE
from rlpx.protocol.rlpx import crypto
from rlpx.protocol.rlpx.crypto import Point, PrivateKey, recover
from tests.twins import WAYS, run_by
from tests.vectors import load


@pytest.fixture(scope="module", params=WAYS, autouse=True)
def made_by(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of this file is run with both ways to the curve, which give the same."""
    yield from run_by(
        request.param, crypto, "curve_parse", "curve_create", "curve_ecdh", "curve_recover", "keccak256", "xor"
    )


ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
FIELD = 2**256 - 2**32 - 977

secrets = st.integers(1, ORDER - 1).map(lambda number: number.to_bytes(32, "big"))
digests = st.binary(min_size=32, max_size=32)

EIP8_KEYS = load("rlpx_eip8_handshake")["keys"]
ECDH_CASES = load("ecies")["ecdh"]

# go-ethereum crypto/signature_test.go.
GETH_DIGEST = bytes.fromhex("ce0677bb30baa8cf067c88db9811f4333d131bf8bcf12fe7065d211dce971008")
GETH_SIGNATURE = bytes.fromhex(
    "90f27b8b488db00b00606796d2987f6a5f59ae62ea05effe84fef5b8b0e54998"
    "4a691139ad57a3f0b906637673aa2f63d1f55cb1a69199d4009eea23ceaddc9301"
)
GETH_ID = bytes.fromhex(
    "e32df42865e97135acfb65f3bae71bdc86f4d49150ad6a440b6f15878109880a"
    "0a2b2667f7e725ceea70c673093bf67663e0312623c8e091b13cf2c0f11ef652"
)


def key_of(number: int) -> PrivateKey:
    return PrivateKey(number.to_bytes(32, "big"))


def spec_keccak(data: bytes) -> bytes:
    return bytes(keccak.new(digest_bits=256, data=data).digest())


# --- private keys


@given(secret=secrets)
def test_a_key_has_the_node_id_that_coincurve_gives_it(secret: bytes) -> None:
    key = PrivateKey(secret)
    assert key.id == coincurve.PrivateKey(secret).public_key.format(compressed=False)[1:]
    assert key.point.id == key.id
    assert key.secret == secret


@pytest.mark.parametrize("name", ["static_key_A", "static_key_B", "ephemeral_key_A", "ephemeral_key_B"])
def test_the_keys_of_eip_8_have_their_published_ids(name: str) -> None:
    assert PrivateKey(bytes.fromhex(EIP8_KEYS[name])).id.hex() == EIP8_KEYS[name.replace("key", "pub")]


@pytest.mark.parametrize("number", [1, ORDER - 1])
def test_the_least_and_the_greatest_secret_are_keys(number: int) -> None:
    generator_x = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
    assert key_of(number).id[:32].hex() == generator_x


@pytest.mark.parametrize(
    "secret",
    [
        b"",
        b"\x01" * 31,
        b"\x01" * 33,
        bytes(32),
        ORDER.to_bytes(32, "big"),
        (ORDER + 1).to_bytes(32, "big"),
        b"\xff" * 32,
    ],
    ids=["empty", "31 bytes", "33 bytes", "zero", "the order", "over the order", "the greatest number"],
)
def test_an_impossible_secret_is_our_own_mistake(secret: bytes) -> None:
    with pytest.raises(UsageError, match="32 bytes, not zero and below the group order") as caught:
        PrivateKey(secret)
    assert secret.hex() == "" or secret.hex() not in str(caught.value)


def test_an_invalid_draw_is_drawn_again() -> None:
    order = ORDER.to_bytes(32, "big")
    valid = b"\x05" * 32
    left = [bytes(32), order, b"\xff" * 32, valid, b"\x06" * 32]
    key = PrivateKey.generate(lambda count: left.pop(0)[:count])
    assert key.secret == valid
    assert left == [b"\x06" * 32]


def test_a_key_is_drawn_from_32_bytes_of_entropy() -> None:
    counts: list[int] = []

    def draw(count: int) -> bytes:
        counts.append(count)
        return b"\x07" * count

    assert PrivateKey.generate(draw).secret == b"\x07" * 32
    assert counts == [32]


@given(secret=secrets)
def test_a_printed_key_shows_four_bytes_of_its_id_and_nothing_else(secret: bytes) -> None:
    key = PrivateKey(secret)
    for shown in (repr(key), str(key), f"{key}", repr([key])):
        assert shown.strip("[]") == f"PrivateKey(id={key.id[:4].hex()}…)"
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown


# --- points


@given(secret=secrets)
def test_every_public_key_is_a_point(secret: bytes) -> None:
    node_id = PrivateKey(secret).id
    assert Point.parse(node_id).id == node_id


def off_curve(x: int, y: int) -> bytes:
    return x.to_bytes(32, "big") + y.to_bytes(32, "big")


# x = 1 lies on the curve, so that x + p is a second way to write it in 32 bytes.
ONE_Y = 0x4218F20AE6C646B363DB68605822FB14264CA8D2587FDD6FBC750D587E76A7EE


def test_the_point_with_x_1_is_a_point() -> None:
    assert Point.parse(off_curve(1, ONE_Y)).id == off_curve(1, ONE_Y)


@pytest.mark.parametrize(
    "node_id",
    [
        bytes(64),
        b"\xff" * 64,
        off_curve(1, 1),
        off_curve(1, ONE_Y ^ 1),
        off_curve(0, ONE_Y),
        off_curve(FIELD + 1, ONE_Y),
        off_curve(FIELD, ONE_Y),
        off_curve(1, FIELD),
    ],
    ids=["zeros", "ones", "(1,1)", "y off by one bit", "x zero", "x + p", "x = p", "y = p"],
)
def test_a_point_off_the_curve_is_refused(node_id: bytes) -> None:
    with pytest.raises(HandshakeError, match="not on the curve"):
        Point.parse(node_id)


@given(secret=secrets, bit=st.integers(0, 511))
def test_a_public_key_with_one_bit_flipped_is_refused(secret: bytes, bit: int) -> None:
    # y² = x³ + 7: another y with this x differs in more than a bit, another x with this y by a cube root of unity.
    number = int.from_bytes(PrivateKey(secret).id, "big") ^ (1 << bit)
    with pytest.raises(HandshakeError):
        Point.parse(number.to_bytes(64, "big"))


@pytest.mark.parametrize("length", [0, 1, 32, 33, 63, 65, 128])
def test_a_public_key_of_the_wrong_length_is_refused(length: int) -> None:
    uncompressed = b"\x04" + key_of(3).id
    with pytest.raises(HandshakeError, match="wrong length"):
        Point.parse((uncompressed * 2)[:length])


# --- key agreement


@pytest.mark.parametrize("case", ECDH_CASES, ids=[case["source"].split()[0] for case in ECDH_CASES])
def test_the_shared_secrets_of_geth_and_reth(case: dict[str, Any]) -> None:
    first = PrivateKey(bytes.fromhex(case["private_1"]))
    assert first.id.hex() == case.get("public_1", first.id.hex())
    if "remote_public" in case:
        assert first.ecdh(Point.parse(bytes.fromhex(case["remote_public"]))).hex() == case["shared"]
        return
    second = PrivateKey(bytes.fromhex(case["private_2"]))
    assert second.id.hex() == case.get("public_2", second.id.hex())
    assert first.ecdh(second.point).hex() == case["shared"]
    assert second.ecdh(Point.parse(first.id)).hex() == case["shared"]


@given(ours=secrets, theirs=secrets)
def test_both_sides_agree_on_the_bare_x_coordinate(ours: bytes, theirs: bytes) -> None:
    shared = PrivateKey(ours).ecdh(PrivateKey(theirs).point)
    assert shared == PrivateKey(theirs).ecdh(Point.parse(PrivateKey(ours).id))
    product = coincurve.PrivateKey(theirs).public_key.multiply(ours)
    assert shared == product.format(compressed=False)[1:33]


# --- signatures


def test_the_signature_of_the_eip_8_auth_names_the_ephemeral_key() -> None:
    static = PrivateKey(bytes.fromhex(EIP8_KEYS["static_key_A"]))
    token = static.ecdh(Point.parse(bytes.fromhex(EIP8_KEYS["static_pub_B"])))
    digest = crypto.xor(token, bytes.fromhex(EIP8_KEYS["nonce_A"]))
    assert recover(digest, bytes.fromhex(EIP8_KEYS["auth_signature"])).id.hex() == EIP8_KEYS["ephemeral_pub_A"]


def test_the_signature_of_geths_own_test_is_recovered() -> None:
    assert recover(GETH_DIGEST, GETH_SIGNATURE).id == GETH_ID


@given(secret=secrets, digest=digests)
def test_a_signature_is_coincurves_and_names_its_maker(secret: bytes, digest: bytes) -> None:
    key = PrivateKey(secret)
    signature = key.sign(digest)
    assert signature == coincurve.PrivateKey(secret).sign_recoverable(digest, hasher=None)
    recovered = recover(digest, signature)
    assert recovered.id == key.id
    # The point itself is usable, not only its id.
    assert PrivateKey(b"\x09" * 32).ecdh(recovered) == key.ecdh(PrivateKey(b"\x09" * 32).point)


@given(secret=secrets, digest=digests, bit=st.integers(0, 255))
def test_a_signature_of_another_digest_names_somebody_else(secret: bytes, digest: bytes, bit: int) -> None:
    key = PrivateKey(secret)
    other = (int.from_bytes(digest, "big") ^ (1 << bit)).to_bytes(32, "big")
    assert recover(other, key.sign(digest)).id != key.id


@pytest.mark.parametrize("length", [0, 1, 64, 66])
def test_a_signature_of_the_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(HandshakeError, match="malformed"):
        recover(GETH_DIGEST, (GETH_SIGNATURE + bytes(1))[:length])


@pytest.mark.parametrize("recovery", [4, 27, 28, 255])
def test_a_recovery_id_over_3_is_refused(recovery: int) -> None:
    with pytest.raises(HandshakeError, match="malformed"):
        recover(GETH_DIGEST, GETH_SIGNATURE[:-1] + bytes([recovery]))


@pytest.mark.parametrize(
    ("r", "s", "recovery"),
    [
        (0, 0, 0),
        (0, 1, 0),
        (1, 0, 0),
        (ORDER, 1, 0),
        (1, ORDER, 0),
        (2**256 - 1, 2**256 - 1, 0),
        (1, 1, 2),
        (1, 1, 3),
        (5, 1, 0),
    ],
)
def test_a_signature_that_recovers_to_no_key_is_refused(r: int, s: int, recovery: int) -> None:
    # r and s out of range; recovery ids 2 and 3 mean x = r + order, which must be below the field's prime and on the
    # curve; no point has x = 5.
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([recovery])
    with pytest.raises(HandshakeError, match="recovers to no key"):
        recover(GETH_DIGEST, signature)


@given(digest=digests, signature=st.binary(min_size=64, max_size=64), recovery=st.integers(0, 3))
def test_any_65_bytes_name_a_point_or_are_refused(digest: bytes, signature: bytes, recovery: int) -> None:
    signature += bytes([recovery])
    try:
        expected = coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=None)
    except Exception:  # noqa: BLE001 - coincurve raises bare Exception where recovery fails
        with pytest.raises(HandshakeError):
            recover(digest, signature)
    else:
        assert recover(digest, signature).id == expected.format(compressed=False)[1:]


# --- digests


def test_keccak_is_the_original_and_not_sha_3() -> None:
    empty = "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert crypto.keccak256(b"").hex() == empty
    assert crypto.running_keccak256().digest().hex() == empty
    assert crypto.keccak256(b"") != hashlib.sha3_256(b"").digest()


@given(data=st.binary(max_size=400))
def test_keccak_is_pycryptodomes(data: bytes) -> None:
    assert crypto.keccak256(data) == spec_keccak(data)
    assert crypto.keccak256(bytearray(data)) == crypto.keccak256(memoryview(data)) == spec_keccak(data)


@given(seed=st.binary(max_size=200), pieces=st.lists(st.binary(max_size=200), max_size=6))
def test_a_running_hash_goes_on_after_its_digest(seed: bytes, pieces: list[bytes]) -> None:
    state = crypto.running_keccak256(seed)
    absorbed = seed
    for piece in pieces:
        assert state.digest() == state.digest() == spec_keccak(absorbed)
        state.update(piece)
        absorbed += piece
    assert state.digest() == spec_keccak(absorbed)


@given(key=st.binary(max_size=100), data=st.binary(max_size=200))
def test_sha256_and_its_hmac_are_the_standards(key: bytes, data: bytes) -> None:
    assert crypto.sha256(data) == crypto.sha256(memoryview(data)) == hashlib.sha256(data).digest()
    padded = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + data).digest()
    assert crypto.hmac_sha256(key, data) == hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()
    assert crypto.hmac_sha256(key, data) == hmac.new(key, data, "sha256").digest()


# --- ciphers


@given(
    key=st.sampled_from([16, 32]).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
    counter=st.binary(min_size=16, max_size=16) | st.just(b"\xff" * 16),
    pieces=st.lists(st.binary(max_size=50), max_size=6),
)
def test_the_keystream_is_pycryptodomes_however_it_is_cut(key: bytes, counter: bytes, pieces: list[bytes]) -> None:
    stream = crypto.aes_ctr(key, counter)
    blocks = Counter.new(128, initial_value=int.from_bytes(counter, "big"), allow_wraparound=True)
    expected = AES.new(key, AES.MODE_CTR, counter=blocks).encrypt(b"".join(pieces))
    assert b"".join([stream.update(piece) for piece in pieces]) == expected
    assert crypto.aes_ctr(key, counter).update(memoryview(expected)) == b"".join(pieces)


@given(key=st.binary(min_size=32, max_size=32), blocks=st.lists(st.binary(min_size=16, max_size=16), max_size=4))
def test_single_blocks_are_pycryptodomes(key: bytes, blocks: list[bytes]) -> None:
    cipher = crypto.aes_ecb(key)
    assert [cipher.update(block) for block in blocks] == [AES.new(key, AES.MODE_ECB).encrypt(block) for block in blocks]


# --- small operations


@given(left=st.binary(max_size=40), right=st.binary(max_size=40))
def test_only_equal_bytes_are_the_same(left: bytes, right: bytes) -> None:
    assert crypto.is_same(left, bytes(bytearray(left)))
    assert crypto.is_same(left, right) == (left == right)
    assert not crypto.is_same(left, left + b"\0")


@given(pair=st.integers(0, 40).flatmap(lambda size: st.tuples(*[st.binary(min_size=size, max_size=size)] * 2)))
def test_exclusive_or_goes_byte_by_byte_and_keeps_leading_zeros(pair: tuple[bytes, bytes]) -> None:
    left, right = pair
    assert crypto.xor(left, right) == bytes(a ^ b for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("parse", [63]),
        ("create", [31]),
        ("ecdh", [64, 33]),
        ("recover", [31, 65]),
        ("recover", [32, 64]),
    ],
)
def test_the_curve_takes_no_other_lengths(name: str, lengths: list[int]) -> None:
    """The library would read beyond the end of what is too short."""
    function = getattr(crypto, f"curve_{name}")
    given: list[Any] = [bytes(length) for length in lengths]
    if name == "ecdh":
        given[0] = crypto.curve_parse(PrivateKey(b"k" * 32).id)
    with pytest.raises(ValueError, match="bytes belong here"):
        function(*given)


def test_a_signature_is_of_32_bytes() -> None:
    key = PrivateKey(b"k" * 32)
    with pytest.raises(ValueError, match="32 bytes belong here"):
        key.sign(b"short")
    signature = key.sign(b"d" * 32)
    with pytest.raises(ValueError, match="32 bytes belong here"):
        recover(b"short", signature)


def no_point() -> Any:
    """What libsecp256k1 refuses as an argument: in its own form a point is never all zeros."""
    made = crypto.curve_parse(PrivateKey(b"k" * 32).id)
    return bytes(64) if isinstance(made, bytes) else ffi.new("secp256k1_pubkey *")


def test_an_argument_that_the_library_refuses_is_an_error_and_not_the_end_of_the_process() -> None:
    with pytest.raises(UsageError, match=r"libsecp256k1 refuses an argument: .*fe_is_zero"):
        crypto.curve_ecdh(no_point(), b"k" * 32)


def test_a_refused_argument_is_forgotten_with_its_error() -> None:
    with pytest.raises(UsageError):
        crypto.curve_ecdh(no_point(), b"k" * 32)
    # Now it is a peer's bytes that are wrong, and nobody's argument.
    assert crypto.curve_parse(bytes(64)) is None
    assert PrivateKey(b"k" * 32).ecdh(PrivateKey(b"l" * 32).point) == PrivateKey(b"l" * 32).ecdh(PrivateKey(b"k" * 32).point)


def test_a_secret_that_is_none_is_refused() -> None:
    point = crypto.curve_parse(PrivateKey(b"k" * 32).id)
    assert point is not None
    with pytest.raises(UsageError, match="not a valid secret"):
        crypto.curve_ecdh(point, bytes(32))


def test_compiled_code_takes_no_address_of_zero() -> None:
    if NATIVE is None:
        pytest.skip("nothing is compiled")
    with pytest.raises(ValueError, match="address of libsecp256k1 is zero"):
        NATIVE.curve(None, *([0] * 8))
    with pytest.raises(TypeError):
        NATIVE.curve(1, 2)
    # Nothing has changed.
    assert crypto.curve_parse(bytes(64)) is None
