"""JSON-RPC: every request is read or refused with a code, and every refusal is a reply."""

from __future__ import annotations

from time import monotonic
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus.commands import COMMANDS, CountsParameters, RequestParameters, SessionParameters
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.bus.json_rpc import (
    REFUSALS,
    InvalidRequestError,
    Request,
    failed,
    find_command,
    identifier_of,
    read_cancel,
    read_parameters,
    read_request,
    refused,
    succeeded,
)
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.wording import WrongValueError
from tests.generated import examples

MESSAGE = {"session": 1, "capability": "eth", "message": 3}


def request(params: bytes | None = None) -> Request:
    """A request with these parameters."""
    return Request("2.0", "any") if params is None else Request("2.0", "any", msgspec.Raw(params))


def read(method: str, params: bytes, *frames: bytes) -> Any:
    """The parameters and the payload of a request."""
    return read_parameters(COMMANDS[method], request(params), list(frames))


def test_a_request_has_its_parts() -> None:
    found = read_request(b'{"jsonrpc":"2.0","id":"a","method":"counts","params":{"x":1}}')
    assert (found.id, found.method, bytes(found.params)) == ("a", "counts", b'{"x":1}')
    assert bytes(read_request(b'{"jsonrpc":"2.0","method":"counts"}').params) == b"{}"


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (b"{", -32700, "not JSON: "),
        (b"\xff", -32700, "not JSON: "),
        (b"[" * 100_000, -32700, "not JSON: "),
        (b"[]", -32600, "not a JSON-RPC request: expected a table of members; got a list"),
        (b'{"jsonrpc":"2.0"}', -32600, "not a JSON-RPC request: method: is missing: text"),
        (b'{"jsonrpc":"2.0","method":"x","id":1e999}', -32600, "not a JSON-RPC request: id: the number is out of range"),
        (b'{"jsonrpc":"1","method":"x"}', -32600, "jsonrpc must be '2.0'"),
        # The mistake is found before the end of the text, which is no JSON either.
        (b'{"jsonrpc":2.0,"method":', -32700, "not JSON: "),
    ],
)
def test_what_is_no_request_says_what_it_should_be(body: bytes, code: int, text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_request(body)
    assert (caught.value.code, str(caught.value)[: len(text)]) == (code, text)
    assert identifier_of(body) is None


def test_the_id_of_a_request_can_be_found_again() -> None:
    assert identifier_of(b'{"jsonrpc":"2.0","method":"x","id":7}') == 7


def test_an_unknown_method_is_answered_with_the_known_ones_and_repeated_in_part() -> None:
    assert find_command("counts", COMMANDS) is COMMANDS["counts"]
    with pytest.raises(InvalidRequestError, match=r"^no method 'x+\.\.\.'; there are ban, broadcast, ") as caught:
        find_command("x" * 10_000_000, COMMANDS)
    assert len(str(caught.value)) < 1000


def test_the_parameters_are_those_of_the_command() -> None:
    assert read("session", b'{"session":5}') == (SessionParameters(session=5), None)
    assert read_parameters(COMMANDS["counts"], request(), []) == (CountsParameters(), None)


def test_a_payload_is_hex_in_the_parameters_or_the_first_frame() -> None:
    in_parameters = orjson.dumps({**MESSAGE, "payload": "0x00ff"})
    parameters, payload = read("request", in_parameters)
    assert payload == b"\x00\xff"
    assert parameters == RequestParameters(session=1, capability="eth", message=3, payload="0x00ff")
    for params in (in_parameters, orjson.dumps(MESSAGE)):
        parameters, payload = read("request", params, b"\x01", b"further frames are ignored")
        assert payload == b"\x01"
        assert parameters == RequestParameters(session=1, capability="eth", message=3, payload="0x")


@pytest.mark.parametrize(
    ("params", "frames", "text"),
    [
        (b'{"session":"1"}', [], "session: expected a whole number, 0 or more, for example 1; got '1'"),
        (b'{"session":1e999}', [], "session: the number is out of range"),
        (b"[1]", [], "expected a table of parameters; got a list"),
        (b"[1]", [b"x"], "expected "),
        (b'{"session":1}', [b"x"], "payload: no such parameter"),
        (b'{"sesion":1}', [], "sesion: no such parameter; did you mean session?"),
    ],
)
def test_a_wrong_parameter_is_named(params: bytes, frames: list[bytes], text: str) -> None:
    with pytest.raises(WrongValueError) as caught:
        read("session", params, *frames)
    assert str(caught.value)[: len(text)] == text
    assert orjson.loads(refused(1, caught.value))["error"]["code"] == -32602


@pytest.mark.parametrize("frames", [[], [b"x"]])
def test_parameters_nested_without_end_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(REFUSALS):
        read("session", b'{"deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}", *frames)


def test_a_parameter_whose_name_has_megabytes_costs_no_time() -> None:
    started = monotonic()
    with pytest.raises(WrongValueError) as caught:
        read("session", b'{"' + b"sess" * 2_000_000 + b'":1}')
    assert len(str(caught.value)) < 1000
    # Looking for a name that is like it took a minute.
    assert monotonic() - started < 20


def test_what_a_type_of_ours_refuses_for_no_visible_reason_is_still_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlpx.protocol.bus.json_rpc.convert", lambda value, _kind, **_: value)
    with pytest.raises(WrongValueError, match="it does not have the expected form"):
        read("session", b'{"session":"1"}')


def test_a_cancellation_names_a_call() -> None:
    assert read_cancel(request(b'{"id":7}')) == 7
    assert read_cancel(request(b'{"id":null}')) is None
    for params in (b"{}", b"[7]", b'{"id":[]}', b'{"id":7,"more":1}'):
        with pytest.raises(WrongValueError):
            read_cancel(request(params))


def test_a_reply_has_the_id_and_the_result_or_the_error() -> None:
    assert orjson.loads(succeeded("a", {"sessions": 1})) == {"jsonrpc": "2.0", "id": "a", "result": {"sessions": 1}}
    assert orjson.loads(refused(1, CommandError(ErrorName.QUEUE_FULL, "full"))) == {
        "jsonrpc": "2.0",
        "id": 1,
        "error": {"code": -32004, "message": "full", "data": {"name": "queue_full"}},
    }
    assert refused(None, InvalidRequestError(-32700, "parse_error", "why")) == failed(None, -32700, "why", "parse_error")


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MESSAGE_VALUES = st.fixed_dictionaries(
    {},
    optional={
        "session": st.integers(-1, 9) | JSON_VALUES,
        "capability": st.sampled_from(["eth", "snap", "wit", ""]) | JSON_VALUES,
        "message": st.sampled_from([0, 2, 127, 128, "Transactions", "2", "x"]) | JSON_VALUES,
        "payload": st.sampled_from(["0x", "0xc0", "c0", "0xc"]) | JSON_VALUES,
        "except": st.lists(st.integers(-1, 9), max_size=3) | JSON_VALUES,
        "timeout_s": st.floats(-1, 30) | JSON_VALUES,
        "reason": st.sampled_from(["useless_peer", "bored"]) | JSON_VALUES,
        "raw": st.booleans() | JSON_VALUES,
    },
)


@examples(300)
@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 255))
def test_any_bytes_are_a_request_or_refused(noise: bytes, at: int, byte: int) -> None:
    harmed = bytearray(b'{"jsonrpc":"2.0","id":7,"method":"session","params":{"session":5}}')
    harmed[at] = byte
    replies: list[bytes] = []
    for body in (noise, bytes(harmed)):
        try:
            request = read_request(body)
            read_parameters(find_command(request.method, COMMANDS), request, [])
        except REFUSALS as error:
            replies.append(refused(identifier_of(body), error))
    assert all(orjson.loads(reply)["error"]["message"] for reply in replies)


@examples(300)
@given(
    st.sampled_from(["send", "request", "broadcast", "disconnect"]),
    MESSAGE_VALUES | JSON_VALUES,
    st.lists(st.binary(max_size=5), max_size=2),
)
def test_any_parameters_are_taken_or_refused(method: str, params: Any, frames: list[bytes]) -> None:
    command = COMMANDS[method]
    replies: list[bytes] = []
    try:
        parameters, payload = read_parameters(command, request(orjson.dumps(params)), frames)
    except REFUSALS as error:
        replies.append(refused(1, error))
    else:
        assert isinstance(parameters, command.parameters)
        assert (payload is None) is not command.has_payload
    assert all(orjson.loads(reply)["error"]["data"]["name"] == "invalid_params" for reply in replies)
