"""Frames byte for byte as published and as a second implementation makes them; nothing spoiled is ever yielded."""

from __future__ import annotations

import gc
import itertools
import os
import tracemalloc
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from Crypto.Cipher import AES
from Crypto.Hash import keccak
from Crypto.Util import Counter
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.errors import FrameError, OversizedFrameError, UsageError
from rlpx.protocol.rlpx import frames as module
from rlpx.protocol.rlpx.bounds import MAX_FRAME_BYTES
from rlpx.protocol.rlpx.crypto import Buffer
from rlpx.protocol.rlpx.frames import MAX_FIRST_FRAME_BYTES, FrameCipher, PythonFrameCipher
from rlpx.protocol.rlpx.handshake import Secrets
from rlpx.protocol.rlpx.tally import CODES, PythonTally, Tally
from tests.generated import examples
from tests.vectors import load

FRAMES = load("rlpx_frames")
COMPUTED = FRAMES["computed_from_eip8_secrets"]
LEGACY = load("rlpx_legacy_handshake")
# Header, its MAC, and the MAC of the body.
EMPTY_FRAME_BYTES = 48

contents = st.lists(st.binary(max_size=70), max_size=6)


class Made:
    """Which of the two ciphers the tests of this file are run with; they are run with each."""

    by: type[PythonFrameCipher] = PythonFrameCipher


@pytest.fixture(scope="module", params=[PythonFrameCipher, FrameCipher], ids=["python", "compiled"], autouse=True)
def made_by(request: pytest.FixtureRequest) -> type[PythonFrameCipher]:
    """Both give the same, byte for byte and word for word."""
    Made.by = request.param
    return Made.by


def cipher(secrets: Secrets) -> FrameCipher:
    """One end of a connection."""
    return Made.by(secrets)


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def pair(seed: bytes = b"seed") -> tuple[FrameCipher, FrameCipher]:
    """Both ends of a connection."""
    aes, mac = (keccak.new(digest_bits=256, data=seed + name).digest() for name in (b"aes", b"mac"))
    ends = [(b"there", b"back"), (b"back", b"there")]
    first, second = (cipher(Secrets(aes, mac, seed + out, seed + into)) for out, into in ends)
    return first, second


def take_all(end: FrameCipher, data: bytes) -> list[bytes]:
    end.feed(data)
    return list(end.frames())


def take_until_refused(end: FrameCipher, data: bytes) -> tuple[list[bytes], FrameError]:
    """The contents before the bad frame, and the error that it raised."""
    end.feed(data)
    taken: list[bytes] = []
    with pytest.raises(FrameError) as caught:
        taken.extend(end.frames())
    return taken, caught.value


# --- the second implementation


class OracleWriter:
    """One direction of `rlpx.md`, "Framing", word for word, made of pycryptodome."""

    def __init__(self, aes: bytes, mac: bytes, seed: bytes) -> None:
        self.stream = AES.new(aes, AES.MODE_CTR, counter=Counter.new(128, initial_value=0))
        self.block = AES.new(mac, AES.MODE_ECB)
        self.state = keccak.new(digest_bits=256, data=seed, update_after_digest=True)

    def absorb(self, seed: bytes) -> bytes:
        aes = self.block.encrypt(self.state.digest()[:16])
        self.state.update(bytes(a ^ b for a, b in zip(aes, seed, strict=True)))
        return bytes(self.state.digest()[:16])

    def frame(self, content: bytes) -> bytes:
        header = self.stream.encrypt(len(content).to_bytes(3, "big") + b"\xc2\x80\x80" + bytes(10))
        header_mac = self.absorb(header)
        padded = content + bytes((16 - len(content)) % 16)
        body = self.stream.encrypt(padded)
        self.state.update(body)
        return bytes(header + header_mac + body + self.absorb(self.state.digest()[:16]))


@given(sent=contents, seed=st.binary(max_size=8))
def test_frames_are_what_the_second_implementation_makes(sent: list[bytes], seed: bytes) -> None:
    aes, mac = (keccak.new(digest_bits=256, data=seed + name).digest() for name in (b"aes", b"mac"))
    writer = OracleWriter(aes, mac, seed + b"there")
    ours, theirs = pair(seed)
    frames = [writer.frame(content) for content in sent]
    assert [ours.seal(content) for content in sent] == frames
    assert take_all(theirs, b"".join(frames)) == sent


# --- published frames


class ConstantHash:
    """The stub of go-ethereum's test: every digest is 32 bytes of 01."""

    def update(self, data: Buffer, /) -> None:
        """Ignore it."""

    def digest(self) -> bytes:
        return b"\x01" * 32


def test_the_frame_of_geths_own_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "running_keccak256", lambda _seed: ConstantHash())
    case = FRAMES["official"][0]
    secrets = Secrets(unhex(case["aes_secret"]), unhex(case["mac_secret"]), b"", b"")
    end = PythonFrameCipher(secrets)
    assert end.seal(unhex(case["frame_content"])).hex() == case["frame"]
    assert take_all(end, unhex(case["frame"])) == [unhex(case["frame_content"])]


def eip8_ends() -> tuple[FrameCipher, FrameCipher]:
    """The two ends after auth2 and ack2."""
    aes, mac = unhex(COMPUTED["aes_secret"]), unhex(COMPUTED["mac_secret"])
    there, back = unhex(COMPUTED["initiator_to_recipient_mac_seed"]), unhex(COMPUTED["recipient_to_initiator_mac_seed"])
    return (
        cipher(Secrets(aes, mac, there, back)),
        cipher(Secrets(aes, mac, back, there)),
    )


def test_the_frames_after_the_handshake_of_eip_8() -> None:
    initiator, recipient = eip8_ends()
    ways = [
        (initiator, recipient, COMPUTED["initiator_to_recipient_frames_in_order"]),
        (recipient, initiator, COMPUTED["recipient_to_initiator_frames_in_order"]),
    ]
    for sender, receiver, frames in ways:
        assert len(frames) > 1
        for frame in frames:
            assert sender.seal(unhex(frame["content"])).hex() == frame["frame"]
            assert take_all(receiver, unhex(frame["frame"])) == [unhex(frame["content"])]


def legacy_end(local: str, remote: str, sent: str, received: str) -> FrameCipher:
    """One end of the published legacy session."""
    values = {name: unhex(value) for name, value in LEGACY["values"].items()}

    def seed(nonce: str, packet: str) -> bytes:
        return bytes(a ^ b for a, b in zip(values["mac_secret"], values[nonce], strict=True)) + values[packet]

    egress = seed(f"{remote}_nonce", sent)
    ingress = seed(f"{local}_nonce", received)
    if local == "initiator":
        assert keccak.new(digest_bits=256, data=egress).digest() == values["initial_egress_MAC"]
        assert keccak.new(digest_bits=256, data=ingress).digest() == values["initial_ingress_MAC"]
    return cipher(Secrets(values["aes_secret"], values["mac_secret"], egress, ingress))


def test_the_hellos_of_the_published_legacy_session() -> None:
    initiator = legacy_end("initiator", "receiver", "auth_ciphertext", "authresp_ciphertext")
    receiver = legacy_end("receiver", "initiator", "authresp_ciphertext", "auth_ciphertext")
    decoded = LEGACY["decoded_frames_computed"]
    for name, sender, other in (("initiator", initiator, receiver), ("receiver", receiver, initiator)):
        content, frame = unhex(decoded[name]["frame_content_plain"]), LEGACY["values"][f"{name}_hello_packet"]
        assert sender.seal(content).hex() == frame
        assert take_all(other, unhex(frame)) == [content]


# --- sizes


@pytest.mark.parametrize(
    ("size", "padded"), [(0, 0), (1, 16), (15, 16), (16, 16), (17, 32), (31, 32), (32, 32), (2048, 2048)]
)
def test_a_content_is_padded_to_whole_blocks(size: int, padded: int) -> None:
    ours, theirs = pair()
    frame = ours.seal(b"x" * size)
    assert len(frame) == EMPTY_FRAME_BYTES + padded
    assert take_all(theirs, frame) == [b"x" * size]
    # The next one starts where both ends agree.
    assert take_all(theirs, ours.seal(b"next")) == [b"next"]


def test_frames_without_content_are_yielded() -> None:
    ours, theirs = pair()
    stream = ours.seal(b"") + ours.seal(b"") + ours.seal(b"a") + ours.seal(b"")
    assert take_all(theirs, stream) == [b"", b"", b"a", b""]


def test_the_longest_frame_is_sealed_and_opened() -> None:
    ours, theirs = pair()
    theirs.limit_bytes = MAX_FRAME_BYTES
    content = bytes(range(256)) * 2**16
    assert len(content) == MAX_FRAME_BYTES + 1 == 2**24
    frame = ours.seal(content[:-1])
    assert len(frame) == EMPTY_FRAME_BYTES + 2**24
    assert take_all(theirs, frame) == [content[:-1]]


def test_a_longer_frame_is_our_own_mistake_and_spoils_nothing() -> None:
    ours, theirs = pair()
    with pytest.raises(UsageError, match="16777216 bytes is over the 16777215"):
        ours.seal(bytes(2**24))
    assert take_all(theirs, ours.seal(b"after")) == [b"after"]


# --- the limit


def test_the_first_frame_may_have_2048_bytes() -> None:
    ours, theirs = pair()
    assert theirs.limit_bytes == MAX_FIRST_FRAME_BYTES == 2048
    assert take_all(theirs, ours.seal(bytes(2048))) == [bytes(2048)]


@pytest.mark.parametrize("size", [2049, 4096, MAX_FRAME_BYTES])
def test_a_longer_first_frame_is_refused_at_its_header(size: int) -> None:
    ours, theirs = pair()
    header = ours.seal(bytes(size))[:32]
    taken, error = take_until_refused(theirs, header)
    assert taken == []
    assert type(error) is OversizedFrameError
    assert str(error) == f"a frame of {size} bytes where 2048 are allowed"


def test_a_forged_header_is_not_asked_for_its_length() -> None:
    ours, theirs = pair()
    header = bytearray(ours.seal(bytes(2049))[:32])
    header[5] ^= 1
    _, error = take_until_refused(theirs, bytes(header))
    assert type(error) is FrameError


def test_the_limit_may_change_between_two_frames_of_one_chunk() -> None:
    ours, theirs = pair()
    theirs.feed(ours.seal(b"hello") + ours.seal(bytes(5000)) + ours.seal(b"12345678") + ours.seal(b"123456789"))
    frames = theirs.frames()
    assert next(frames) == b"hello"
    theirs.limit_bytes = 5000
    assert next(frames) == bytes(5000)
    theirs.limit_bytes = 8
    assert next(frames) == b"12345678"
    with pytest.raises(OversizedFrameError, match="9 bytes where 8"):
        next(frames)


def test_the_limit_at_the_header_is_the_one_that_counts() -> None:
    ours, theirs = pair()
    frame = ours.seal(b"12345678")
    assert take_all(theirs, frame[:32]) == []
    theirs.limit_bytes = 0
    assert take_all(theirs, frame[32:]) == [b"12345678"]
    with pytest.raises(OversizedFrameError, match="1 bytes where 0"):
        take_all(theirs, ours.seal(b"1"))


def test_a_limit_of_zero_lets_empty_frames_pass() -> None:
    ours, theirs = pair()
    theirs.limit_bytes = 0
    assert take_all(theirs, ours.seal(b"")) == [b""]


# --- chunks


@given(
    sent=contents, cuts=st.lists(st.integers(0, 1000), max_size=12), drains=st.lists(st.booleans(), min_size=13, max_size=13)
)
def test_chunking_changes_nothing(sent: list[bytes], cuts: list[int], drains: list[bool]) -> None:
    ours, theirs = pair()
    stream = b"".join([ours.seal(content) for content in sent])
    taken: list[bytes] = []
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for (start, end), drain in zip(itertools.pairwise(edges), drains, strict=False):
        theirs.feed(stream[start:end])
        if drain:
            taken += theirs.frames()
    taken += theirs.frames()
    assert taken == sent
    assert theirs.buffered_bytes == 0


def test_a_stream_may_come_byte_by_byte() -> None:
    ours, theirs = pair()
    sent = [b"", b"a", b"b" * 16, b"c" * 100]
    stream = b"".join([ours.seal(content) for content in sent])
    assert [content for at in range(len(stream)) for content in take_all(theirs, stream[at : at + 1])] == sent


def test_both_directions_run_on_their_own() -> None:
    ours, theirs = pair()
    for number in range(5):
        there, back = b"there %d" % number, b"and back %d" % number
        frames = ours.seal(there), theirs.seal(back)
        assert take_all(theirs, frames[0]) == [there]
        assert take_all(ours, frames[1]) == [back]


def test_a_frame_comes_out_with_its_last_byte_and_not_before() -> None:
    ours, theirs = pair()
    frame = ours.seal(b"whole")
    for byte in frame[:-1]:
        assert take_all(theirs, bytes([byte])) == []
    assert take_all(theirs, frame[-1:]) == [b"whole"]


def test_nothing_fed_yields_nothing() -> None:
    _, theirs = pair()
    assert list(theirs.frames()) == []
    assert take_all(theirs, b"") == []


def test_the_caller_may_stop_and_go_on_later() -> None:
    ours, theirs = pair()
    sent = [b"frame %d" % number for number in range(6)]
    stream = b"".join([ours.seal(content) for content in sent])
    theirs.feed(stream[:-10])
    assert next(theirs.frames()) == sent[0]
    abandoned = theirs.frames()
    assert [next(abandoned), next(abandoned)] == sent[1:3]
    del abandoned
    assert list(itertools.islice(theirs.frames(), 1)) == sent[3:4]
    theirs.feed(stream[-10:])
    assert list(theirs.frames()) == sent[4:]


def test_what_is_fed_between_two_frames_is_seen_by_the_same_iteration() -> None:
    ours, theirs = pair()
    stream = b"".join([ours.seal(content) for content in (b"one", b"two")])
    theirs.feed(stream[:70])
    frames = theirs.frames()
    assert next(frames) == b"one"
    theirs.feed(stream[70:])
    assert list(frames) == [b"two"]


@given(size=st.integers(0, 70), cuts=st.lists(st.integers(1, 200), max_size=6))
def test_the_buffered_bytes_are_those_of_no_whole_piece(size: int, cuts: list[int]) -> None:
    ours, theirs = pair()
    stream = b"".join([ours.seal(bytes(size)) for _ in range(4)])
    body = len(stream) // 4 - 32
    fed = 0
    for cut in cuts:
        chunk = stream[fed : fed + cut]
        before = theirs.buffered_bytes
        theirs.feed(chunk)
        assert theirs.buffered_bytes == before + len(chunk)
        fed += len(chunk)
        count = len(list(theirs.frames()))
        rest = fed % (32 + body)
        # A header is taken as soon as it is whole.
        assert theirs.buffered_bytes == (rest if rest < 32 else rest - 32)
        assert count <= 4


def test_a_few_bytes_left_over_do_not_hold_the_chunk_they_came_in() -> None:
    ours, theirs = pair()
    theirs.limit_bytes = MAX_FRAME_BYTES
    gc.collect()
    tracemalloc.start()
    try:
        theirs.feed(ours.seal(bytes(2**20)) + ours.seal(b"next")[:20])
        assert sum(len(content) for content in theirs.frames()) == 2**20
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert theirs.buffered_bytes == 20
    assert peak > 2**20
    assert kept < 2**16


@pytest.mark.parametrize("size", [2**18, 300_000, 400_000])
def test_a_frame_that_trickles_in_is_held_once(size: int) -> None:
    ours, theirs = pair()
    theirs.limit_bytes = MAX_FRAME_BYTES
    frame = ours.seal(bytes(size))
    pieces = [frame[at : at + 3] for at in range(0, len(frame) - 3, 3)]
    gc.collect()
    tracemalloc.start()
    try:
        for piece in pieces:
            # A copy of its own, as a socket gives.
            theirs.feed(bytes(bytearray(piece)))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    fed = sum(map(len, pieces))
    assert theirs.buffered_bytes == fed
    # Both keep an eighth in reserve; a list of pieces would hold twelve times as much.
    assert held < 1.2 * fed
    assert take_all(theirs, frame[fed:]) == [bytes(size)]


# --- what is spoiled


def test_any_flipped_bit_is_refused_after_the_frames_before_it() -> None:
    sent = [b"", b"a", b"b" * 33]
    ours, _ = pair()
    frames = [ours.seal(content) for content in sent]
    stream = b"".join(frames)
    ends = list(itertools.accumulate(map(len, frames)))
    for position in range(len(stream) * 8):
        at = position // 8
        spoiled = bytearray(stream)
        spoiled[at] ^= 1 << position % 8
        number = sum(end <= at for end in ends)
        _, theirs = pair()
        taken, error = take_until_refused(theirs, bytes(spoiled))
        assert taken == sent[:number]
        assert type(error) is FrameError
        assert error.reason is None
        in_header = at - (ends[number] - len(frames[number])) < 32
        assert str(error) == f"a frame {'header' if in_header else 'body'} whose MAC differs"


@pytest.mark.parametrize("at", [0, 15, 16, 31, 32, 47, 48, 63])
def test_nothing_is_yielded_after_a_spoiled_frame(at: int) -> None:
    ours, theirs = pair()
    spoiled = bytearray(ours.seal(b"spoiled"))
    assert len(spoiled) == 64
    spoiled[at] ^= 0x80
    take_until_refused(theirs, bytes(spoiled))
    for _ in range(3):
        taken, error = take_until_refused(theirs, ours.seal(b"good"))
        assert taken == []
        assert type(error) is FrameError


@pytest.mark.parametrize("size", [2049, 70_000])
def test_nothing_is_yielded_after_an_oversized_frame(size: int) -> None:
    ours, theirs = pair()
    take_until_refused(theirs, ours.seal(bytes(size)))
    theirs.limit_bytes = MAX_FRAME_BYTES
    taken, error = take_until_refused(theirs, ours.seal(b"good"))
    assert taken == []
    assert type(error) is FrameError
    assert str(error) == "a frame after one that was refused"


def test_a_peer_that_knows_the_keys_gets_no_further_after_a_wrong_tag() -> None:
    ours, theirs = pair()
    spoiled = bytearray(ours.seal(b"spoiled"))
    spoiled[-1] ^= 1
    following = ours.seal(b"following")
    theirs.feed(bytes(spoiled) + following)
    with pytest.raises(FrameError, match="body whose MAC differs"):
        next(theirs.frames())
    assert theirs.buffered_bytes == 0
    taken, error = take_until_refused(theirs, following)
    assert (taken, str(error)) == ([], "a frame after one that was refused")
    assert theirs.buffered_bytes == 0


@given(data=st.binary(min_size=32, max_size=300))
def test_arbitrary_bytes_are_refused_once_a_header_is_whole(data: bytes) -> None:
    _, theirs = pair()
    assert take_all(theirs, data[:31]) == []
    _, error = take_until_refused(theirs, data[31:])
    assert type(error) is FrameError


def spoil(frames: list[bytes], way: str) -> Any:
    first, second, third = frames
    return {
        "repeated": first + first,
        "left out": first + third,
        "exchanged": second + first,
        "header of another": first + second[:32] + third[32:],
        "begun anew": first + second[:32] + first,
    }[way]


@pytest.mark.parametrize("way", ["repeated", "left out", "exchanged", "header of another", "begun anew"])
def test_good_frames_in_another_order_are_refused(way: str) -> None:
    ours, theirs = pair()
    frames = [ours.seal(content * 4) for content in (b"1", b"2", b"3")]
    taken, _ = take_until_refused(theirs, spoil(frames, way))
    assert taken == ([] if way == "exchanged" else [b"1111"])


def test_our_own_frame_sent_back_to_us_is_refused() -> None:
    ours, _ = pair()
    taken, _ = take_until_refused(ours, ours.seal(b"mirror"))
    assert taken == []


def test_the_header_data_of_a_peer_is_not_read() -> None:
    # rlpx.md: capability-id and context-id are ignored.
    aes, mac = (keccak.new(digest_bits=256, data=b"seed" + name).digest() for name in (b"aes", b"mac"))
    writer = OracleWriter(aes, mac, b"seedthere")
    header = writer.stream.encrypt(b"\x00\x00\x04" + b"\xc6\x03\x82\x01\x02\x82\x03\x04" + bytes(5))
    header_mac = writer.absorb(header)
    body = writer.stream.encrypt(b"data" + b"\xee" * 12)
    writer.state.update(body)
    _, theirs = pair()
    assert take_all(theirs, bytes(header + header_mac + body + writer.absorb(writer.state.digest()[:16]))) == [b"data"]


# --- what a tally takes

CODE = 0x12


def tally_for(end: FrameCipher) -> array[int]:
    """Let a cipher have a tally that takes one code; returns its counters."""
    counters = array("Q", bytes(8 * 2 * CODES))
    end.tally = (PythonTally if type(end) is PythonFrameCipher else Tally)(counters)
    end.tally.skip(CODE, 100, 100)
    return counters


def test_what_the_tally_takes_is_not_yielded() -> None:
    ours, theirs = pair()
    assert theirs.tally is None
    counters = tally_for(theirs)
    unread, read = bytes([CODE, 5]), bytes([CODE + 1, 5])
    sent = [unread, read, unread, unread, b"", read, unread]
    assert take_all(theirs, b"".join(map(ours.seal, sent))) == [read, b"", read]
    assert (theirs.counted, counters[CODE], counters[CODES + CODE]) == (4, 4, 8)
    assert theirs.buffered_bytes == 0
    theirs.tally = None
    assert take_all(theirs, ours.seal(unread)) == [unread]
    assert theirs.counted == 4


def test_a_damaged_frame_is_not_counted() -> None:
    ours, theirs = pair()
    counters = tally_for(theirs)
    frame = bytearray(ours.seal(bytes([CODE, 5])))
    frame[-1] ^= 1
    with pytest.raises(FrameError, match="a frame body whose MAC differs"):
        theirs.open(bytes(frame))
    assert (theirs.counted, counters[CODE]) == (0, 0)


def test_a_tally_is_a_tally() -> None:
    _, theirs = pair()
    if Made.by is PythonFrameCipher:
        pytest.skip("the type checker looks after Python")
    unchecked: Any = theirs
    for wrong in (7, PythonTally(array("Q", bytes(8 * 2 * CODES)))):
        with pytest.raises(TypeError, match="a Tally or None"):
            unchecked.tally = wrong
    with pytest.raises(TypeError, match="a Tally or None"):
        del unchecked.tally


# --- chunks in memory that is used again


def test_a_chunk_may_be_overwritten_as_soon_as_it_was_opened() -> None:
    ours, theirs = pair()
    theirs.limit_bytes = MAX_FRAME_BYTES
    contents = [os.urandom(size) for size in (1000, 16, 15, 40, 0, 5000, 3)]
    stream = b"".join(map(ours.seal, contents))
    buffer = bytearray(700)
    found: list[bytes] = []
    for start in range(0, len(stream), 700):
        piece = stream[start : start + 700]
        buffer[: len(piece)] = piece
        first = theirs.open(memoryview(buffer)[: len(piece)])
        buffer[:] = bytes(700)
        if first is not None:
            found += [first, *theirs.frames()]
    assert found == contents
    assert theirs.buffered_bytes == 0


def test_what_was_not_opened_of_a_chunk_is_kept_and_joined_to_the_next() -> None:
    ours, theirs = pair()
    frames = [ours.seal(content) for content in (b"first", b"second", b"third", b"fourth")]
    buffer = bytearray(frames[0] + frames[1] + frames[2][:20])
    assert theirs.open(memoryview(buffer)) == b"first"
    buffer[:] = bytes(len(buffer))
    assert theirs.buffered_bytes == len(frames[1]) + 20
    assert theirs.open(memoryview(frames[2][20:])) == b"second"
    theirs.feed(frames[3])
    assert list(theirs.frames()) == [b"third", b"fourth"]
    assert theirs.open(b"") is None


def test_nothing_is_opened_after_a_frame_that_was_refused() -> None:
    ours, theirs = pair()
    with pytest.raises(FrameError, match="a frame header whose MAC differs"):
        theirs.open(bytes(40))
    with pytest.raises(FrameError, match="a frame after one that was refused"):
        theirs.open(ours.seal(b"next"))
    assert theirs.buffered_bytes == 0


def test_compiled_code_opens_bytes_only() -> None:
    _, theirs = pair()
    if Made.by is PythonFrameCipher:
        pytest.skip("the type checker looks after Python")
    unchecked: Any = theirs
    with pytest.raises(TypeError):
        unchecked.open("text")


# --- the two ciphers side by side

steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, 400)),
        st.tuples(st.just("seal"), st.integers(0, 300)),
        st.tuples(st.just("arrive"), st.integers(0, 400)),
        st.tuples(st.just("spoil"), st.integers(0, 400 * 8)),
        st.tuples(st.just("open"), st.integers(0, 4)),
        st.tuples(st.just("limit"), st.sampled_from([0, 15, 16, 200, MAX_FRAME_BYTES])),
    ),
    max_size=60,
)


def outcome_of(end: FrameCipher, most: int) -> tuple[list[bytes], str]:
    taken: list[bytes] = []
    try:
        taken.extend(itertools.islice(end.frames(), most))
    except FrameError as error:
        return taken, repr(error)
    return taken, ""


def outcome_of_open(end: FrameCipher, chunk: bytearray) -> tuple[bytes | None, str]:
    lent = bytearray(chunk)
    try:
        return end.open(memoryview(lent)), ""
    except FrameError as error:
        return None, repr(error)
    finally:
        lent[:] = bytes(len(lent))


@examples(400)
@given(steps=steps)
def test_whatever_comes_both_say_the_same(steps: list[tuple[str, int]]) -> None:
    secrets = Secrets(b"a" * 32, b"m" * 32, b"out", b"in")
    writers = [made(secrets) for made in (PythonFrameCipher, FrameCipher)]
    ends = [made(secrets._replace(egress_seed=b"in", ingress_seed=b"out")) for made in (PythonFrameCipher, FrameCipher)]
    counters = [tally_for(end) for end in ends]
    wire = bytearray()
    for step, number in steps:
        if step == "seal":
            # Every third one begins with the code that the tally takes.
            content = bytes([CODE if number % 3 == 0 else number & 0xFF]) * number
            sealed = [writer.seal(content) for writer in writers]
            assert sealed[0] == sealed[1]
            wire += sealed[0]
        elif step == "spoil" and wire:
            wire[number // 8 % len(wire)] ^= 1 << number % 8
        elif step == "arrive":
            for end in ends:
                end.feed(bytes(wire[:number]))
            del wire[:number]
        elif step == "take":
            chunk = bytearray(wire[:number])
            del wire[:number]
            firsts = [outcome_of_open(end, chunk) for end in ends]
            assert firsts[0] == firsts[1]
            assert ends[0].counted == ends[1].counted
        elif step == "open":
            outcomes = [outcome_of(end, number) for end in ends]
            assert outcomes[0] == outcomes[1]
        elif step == "limit":
            for end in ends:
                end.limit_bytes = number
        assert ends[0].buffered_bytes == ends[1].buffered_bytes
        assert counters[0] == counters[1]


def without_memory(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out in the midst of a call. (`tests/protocol/c` lets every allocation of compiled code fail in turn.)"""
    has_failed = False
    testcapi = None if Made.by is PythonFrameCipher else pytest.importorskip("_testcapi")
    if testcapi is None:
        monkeypatch.setattr(module, "xor", fail_by_memory)
    else:
        testcapi.set_nomemory(0, 1)
    try:
        call()
    except MemoryError:
        has_failed = True
    finally:
        if testcapi is not None:
            testcapi.remove_mem_hooks()
    monkeypatch.undo()
    assert has_failed


def fail_by_memory(_left: bytes, _right: bytes) -> bytes:
    raise MemoryError


def test_memory_that_runs_out_breaks_the_stream_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pair()
    theirs.limit_bytes = MAX_FRAME_BYTES
    frame = ours.seal(bytes(300_000))
    assert take_all(theirs, frame[:60_000]) == []
    theirs.feed(frame[60_000:])
    # The content has to grow for these.
    without_memory(partial(next, theirs.frames()), monkeypatch)
    taken, error = take_until_refused(theirs, ours.seal(b"next"))
    assert (taken, str(error)) == ([], "a frame after one that was refused")
    assert take_all(ours, theirs.seal(b"the other direction")) == [b"the other direction"]


def test_a_chunk_that_finds_no_memory_breaks_the_stream_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    if Made.by is PythonFrameCipher:
        pytest.skip("Python's own buffers are not made to fail")
    ours, theirs = pair()
    theirs.feed(ours.seal(b"first") + ours.seal(b"second"))
    opened = theirs.frames()
    assert next(opened) == b"first"
    # It has to be joined to what waits.
    without_memory(partial(theirs.feed, ours.seal(bytes(1000))), monkeypatch)
    assert theirs.buffered_bytes == 0
    taken, error = take_until_refused(theirs, ours.seal(b"fourth"))
    assert (taken, str(error)) == ([], "a frame after one that was refused")


def test_a_frame_that_finds_no_memory_is_the_last_one_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pair()
    assert take_all(theirs, ours.seal(b"first")) == [b"first"]
    without_memory(partial(ours.seal, bytes(1000)), monkeypatch)
    with pytest.raises(UsageError, match="a frame after one that was not sealed"):
        ours.seal(b"third")
    assert take_all(ours, theirs.seal(b"the other direction")) == [b"the other direction"]


def test_compiled_code_leaves_no_cipher_state_in_freed_memory() -> None:
    if Made.by is PythonFrameCipher or os.environ.get("PYTHONMALLOC"):
        pytest.skip("Python's objects are Python's" if Made.by is PythonFrameCipher else "freed memory is guarded")
    end = cipher(Secrets(b"a" * 32, b"m" * 32, b"o" * 100, b"i" * 100))
    start, size = id(end), type(end).__basicsize__
    # What each MAC has absorbed stands in its state as it is until the rate of 136 bytes is full; and the digests.
    traces = [b"o" * 100, b"i" * 100]
    traces += [keccak.new(digest_bits=256, data=seed).digest()[:16] for seed in traces]
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    try:
        while_it_lives = os.pread(memory, size, start)
        assert all(trace in while_it_lives for trace in traces)
        del end
        freed = os.pread(memory, size, start)
    finally:
        os.close(memory)
    assert not any(trace in freed for trace in traces)


@pytest.mark.parametrize("size", [16, 17, 100, 5000])
def test_the_first_block_of_a_content_is_there_before_it_is_whole(size: int) -> None:
    ours, theirs = pair()
    theirs.limit_bytes = MAX_FRAME_BYTES
    content = bytes(range(16)) + os.urandom(size - 16)
    for _ in range(2):
        sealed = ours.seal(content)
        assert theirs.begun is None
        for at, byte in enumerate(sealed[:-1]):
            theirs.feed(bytes([byte]))
            assert list(theirs.frames()) == []
            assert theirs.begun == (None if at < 32 + 16 - 1 else (size, content[:16]))
        theirs.feed(sealed[-1:])
        assert list(theirs.frames()) == [content]
    assert theirs.begun is None


def test_a_content_of_less_than_a_block_has_none() -> None:
    ours, theirs = pair()
    theirs.limit_bytes = MAX_FRAME_BYTES
    sealed = ours.seal(bytes(15))
    theirs.feed(sealed[:-1])
    assert list(theirs.frames()) == []
    assert theirs.begun is None


def test_whether_the_first_block_is_looked_at_changes_nothing() -> None:
    ours, theirs = pair()
    theirs.limit_bytes = MAX_FRAME_BYTES
    contents = [os.urandom(size) for size in (1000, 16, 15, 40, 0, 5000)]
    stream = b"".join(map(ours.seal, contents))
    found: list[bytes] = []
    for start in range(0, len(stream), 700):
        theirs.feed(stream[start : start + 700])
        found += theirs.frames()
        begun = theirs.begun
        assert begun is None or contents[len(found)][:16] == begun[1]
    assert found == contents


def test_a_broken_cipher_has_begun_nothing() -> None:
    ours, theirs = pair()
    theirs.limit_bytes = MAX_FRAME_BYTES
    theirs.feed(ours.seal(bytes(100))[:60])
    assert list(theirs.frames()) == []
    theirs.feed(bytes(100))
    with pytest.raises(FrameError):
        list(theirs.frames())
    assert theirs.begun is None
