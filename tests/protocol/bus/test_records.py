"""A worker reads the records that the engine writes, and no secret shows in them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import (
    Dial,
    SessionId,
    WorkerId,
)
from rlpx.protocol.bus.records import (
    RECORD_MAX_BYTES,
    Configure,
    DataKeys,
    Handoff,
    Handoffs,
    NodeConfig,
    Record,
    decode_record,
    encode_record,
)
from rlpx.protocol.eth import eth, snap
from rlpx.protocol.eth.forkid import Chain
from rlpx.protocol.eth.status import Head
from rlpx.protocol.settings import WorkerSettings
from tests.protocol.bus.any_struct import kinds, structs

CONF = Path(__file__).parents[3] / "conf"
KEY: Final = bytes(range(0x80, 0xA0))


def configuration(chain_file: str) -> Configure:
    """A worker's configuration with a chain of `conf/`."""
    chain = msgspec.convert(tomllib.loads((CONF / f"{chain_file}.toml").read_text(encoding="utf-8")), Chain)
    return Configure(
        worker=WorkerId(1),
        run="4d2",
        node=NodeConfig(KEY, "rlpx-engine/0.1.0", 30303),
        protocols=(eth.sub_protocol(69), snap.sub_protocol(1)),
        required=("eth",),
        chain=chain,
        head=Head(0, chain.genesis, total_difficulty="58750003716598352816469"),
        is_head_known=True,
        settings=WorkerSettings(),
        data_path="/run/worker-0.ipc",
    )


@given(record=st.one_of(*map(structs, kinds(Record))))
def test_a_record_reads_back_as_it_was(record: Record) -> None:
    again = decode_record(encode_record(record))
    assert type(again) is type(record)
    assert again == record


@pytest.mark.parametrize("chain", ["mainnet", "sepolia", "hoodi", "dev"])
def test_the_configuration_of_each_chain_fits_a_record(chain: str) -> None:
    record = encode_record(configuration(chain))
    assert decode_record(record) == configuration(chain)
    assert len(record) < RECORD_MAX_BYTES // 8


@pytest.mark.parametrize("data", [b"", b"\xc1", encode_record(Handoffs((Handoff(SessionId(1)),)))[:-1]])
def test_a_record_that_is_not_one_is_a_fault(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_record(data)


def test_a_command_is_no_record() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_record(control.encode(Dial(SessionId(1), bytes(64), (("192.0.2.1", 30303),)))[4:])


def test_the_key_of_the_endpoints_stands_in_no_representation() -> None:
    configure = msgspec.structs.replace(configuration("dev"), data_keys=DataKeys(KEY))
    again = decode_record(encode_record(configure))
    assert isinstance(again, Configure)
    assert again.data_keys.secret == KEY
    assert again.data_keys.__rich_repr__() == []
    for spelling in (repr(KEY)[2:-1], KEY.hex(), str(list(KEY))):
        assert spelling not in repr(configure)


def test_the_nodes_key_stands_in_no_representation() -> None:
    configure = configuration("dev")
    assert decode_record(encode_record(configure)) == configure
    for text in (
        repr(configure),
        str(configure),
        f"{configure}",
        repr(configure.node),
        str(configure.node),
        repr([configure]),
        # What a rich traceback asks for; msgspec's own tells every field.
        str(configure.node.__rich_repr__()),
    ):
        assert "rlpx-engine/0.1.0" in text
        for spelling in (repr(KEY), repr(KEY)[2:-1], KEY.hex(), str(list(KEY))):
            assert spelling not in text
