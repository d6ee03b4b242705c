"""The meaning of parameters that their types cannot express: each function returns the value, or refuses it.

The engine's handlers use these functions; those about messages are in `protocol/bus/arguments.py`, as workers use them too.
`rlpx-ctl` checks commands with them before it asks an engine.
"""

from __future__ import annotations

from rlpx.engine.ledger.addresses import Address, parse_address
from rlpx.engine.settings.protocols import parse_sub_protocol
from rlpx.protocol.bus.arguments import message_of, payload_of
from rlpx.protocol.bus.commands import (
    AddPeerParameters,
    AddSubProtocolParameters,
    BanParameters,
    BroadcastParameters,
    DialParameters,
    Parameters,
    SendParameters,
    SetStatusParameters,
)
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.bus.values import EnodeUrl, SubProtocolText
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.rlpx.capabilities import SubProtocol
from rlpx.protocol.rlpx.enode import Enode, EnodeError, parse_enode
from rlpx.protocol.wording import Expected, expected_of, wrong


def enode_of(parameters: DialParameters | AddPeerParameters) -> Enode:
    """The node that the user names. Raises `CommandError`."""
    try:
        return parse_enode(parameters.enode)
    except EnodeError as error:
        problem = wrong(parameters.enode, expected_of(EnodeUrl), str(error))
        raise CommandError(ErrorName.INVALID_PARAMS, f"enode: {problem}") from error


def banned_of(parameters: BanParameters) -> tuple[bytes | None, Address | None]:
    """The id and the address to keep out. Raises `CommandError`."""
    if parameters.peer is None and parameters.address is None:
        raise CommandError(ErrorName.INVALID_PARAMS, "peer or address: one of them is needed")
    peer = None if parameters.peer is None else bytes.fromhex(parameters.peer)
    try:
        return peer, None if parameters.address is None else parse_address(parameters.address)
    except ValueError as error:
        problem = wrong(parameters.address, Expected("an IP address", "203.0.113.7"))
        raise CommandError(ErrorName.INVALID_PARAMS, f"address: {problem}") from error


def sub_protocol_of(parameters: AddSubProtocolParameters) -> SubProtocol:
    """The sub-protocol that the user names. Raises `CommandError`."""
    try:
        return parse_sub_protocol(parameters.protocol)
    except ValueError as error:
        problem = wrong(parameters.protocol, expected_of(SubProtocolText), str(error))
        raise CommandError(ErrorName.INVALID_PARAMS, f"protocol: {problem}") from error


def block_hash_of(parameters: SetStatusParameters) -> bytes:
    """The hash of our head, if its range is possible. Raises `CommandError`."""
    if parameters.earliest > parameters.number:
        raise CommandError(ErrorName.INVALID_PARAMS, f"earliest: {parameters.earliest} is above number {parameters.number}")
    block_hash = bytes.fromhex(parameters.hash.removeprefix("0x"))
    if not any(block_hash):
        raise CommandError(ErrorName.INVALID_PARAMS, "hash: peers refuse a hash of zeros")
    return block_hash


def check(parameters: Parameters) -> None:
    """Check everything that needs no engine. Raises `CommandError`, as the command itself would."""
    match parameters:
        case DialParameters() | AddPeerParameters():
            enode_of(parameters)
        case BanParameters():
            banned_of(parameters)
        case AddSubProtocolParameters():
            sub_protocol_of(parameters)
        case SetStatusParameters():
            block_hash_of(parameters)
        case SendParameters() | BroadcastParameters():
            message_of(parameters)
            payload_of(parameters.payload)
        case _:
            pass
