"""What peers would punish is not sent: each refusal says why, and what is right passes."""

from __future__ import annotations

import pytest
import rlp as oracle

from rlpx.protocol.errors import UsageError
from rlpx.protocol.eth.kinds import message_table
from rlpx.protocol.eth.sendable import check_sendable
from rlpx.protocol.rlpx.capabilities import Capability, SubProtocol, share
from tests.pair import Rlp, status_fields
from tests.protocol.eth.test_request_forms import kind_of

A = b"\xaa" * 32
NEW_BLOCK_HASHES = [[A, 5]]
MASK = bytes(16)

RIGHT: list[tuple[str, int, str, Rlp]] = [
    ("eth", 66, "Transactions", []),
    ("eth", 69, "Transactions", [b"\x02\xc0"]),
    ("eth", 67, "NewPooledTransactionHashes", [A]),
    ("eth", 68, "NewPooledTransactionHashes", [b"\x02", [100], [A]]),
    ("eth", 72, "NewPooledTransactionHashes", [b"\x02", [100], [A], MASK]),
    ("eth", 69, "GetReceipts", [1, [A]]),
    ("eth", 70, "GetReceipts", [1, 0, [A]]),
    ("eth", 69, "BlockRangeUpdate", [1, 2, A]),
    ("eth", 69, "BlockHeaders", [1, []]),
    ("snap", 1, "GetByteCodes", [1, [A], 1000]),
]


@pytest.mark.parametrize(("capability", "version", "name", "item"), RIGHT)
def test_what_is_right_in_its_version_may_be_sent(capability: str, version: int, name: str, item: Rlp) -> None:
    check_sendable(kind_of(capability, version, name), oracle.encode(item), is_proof_of_stake=True)


WRONG: list[tuple[str, int, str, bytes, str]] = [
    ("eth", 69, "Status", oracle.encode(list(status_fields(69).values())), "Status: the handshake has exchanged it"),
    ("eth", 69, "NewBlockHashes", oracle.encode(NEW_BLOCK_HASHES), "NewBlockHashes: on a chain of proof of stake"),
    ("eth", 69, "NewBlock", b"\xc0", "NewBlock: on a chain of proof of stake"),
    ("eth", 69, "Transactions", b"", "payload: not what eth/69 has as Transactions"),
    ("eth", 69, "Transactions", b"\xc1\x05", "payload: not what eth/69 has as Transactions.transactions[0]: "),
    ("eth", 69, "Transactions", b"\xc0\x00", "payload: 1 bytes behind the Transactions"),
    # The forms of other versions.
    ("eth", 68, "NewPooledTransactionHashes", oracle.encode([A]), "payload: not what eth/68 has as NewPooledTransaction"),
    ("eth", 70, "GetReceipts", oracle.encode([1, [A]]), "payload: not what eth/70 has as GetReceipts.first_index"),
    ("eth", 68, "NewPooledTransactionHashes", oracle.encode([b"\x02", [], [A]]), "an announcement of 1 types, 0 sizes"),
    ("eth", 67, "NewPooledTransactionHashes", b"\xc0", "NewPooledTransactionHashes: it announces nothing"),
    ("eth", 69, "NewPooledTransactionHashes", oracle.encode([b"", [], []]), "it announces nothing"),
    ("eth", 66, "NewPooledTransactionHashes", oracle.encode([A, A]), "a transaction is named twice"),
    ("eth", 72, "NewPooledTransactionHashes", oracle.encode([b"\2\2", [9, 9], [A, A], MASK]), "is named twice"),
    ("eth", 69, "BlockRangeUpdate", oracle.encode([2, 1, A]), "a block range from 2 back to 1"),
    ("snap", 1, "GetByteCodes", oracle.encode([1, [A]]), "payload: not what snap/1 has as GetByteCodes.response_bytes"),
]


@pytest.mark.parametrize(("capability", "version", "name", "payload", "words"), WRONG)
def test_what_peers_would_punish_is_refused(capability: str, version: int, name: str, payload: bytes, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_sendable(kind_of(capability, version, name), payload, is_proof_of_stake=True)
    assert words in str(caught.value)
    assert str(caught.value).endswith("; raw sends it as it is")


def test_blocks_are_gossiped_where_they_are_mined() -> None:
    kind = kind_of("eth", 68, "NewBlockHashes")
    check_sendable(kind, oracle.encode(NEW_BLOCK_HASHES), is_proof_of_stake=False)


def test_what_a_sub_protocol_of_the_user_s_says_is_the_user_s() -> None:
    wit = SubProtocol(Capability("wit", 0), 4)
    kind = message_table(share([wit], [wit.capability])).find("wit", 0)
    check_sendable(kind, b"\xff", is_proof_of_stake=True)
