"""One reply a request, whatever came: the right code, the request's id, the key that is wrong."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta

from engine import rpc
from engine.rpc import CommandError, Method, Parameters, Registry
from protocol.errors import UsageError


class EchoParameters(Parameters, frozen=True, kw_only=True):
    """What to echo."""

    number: Annotated[int, Meta(ge=0)]
    payload: str = ""


class FailParameters(Parameters, frozen=True, kw_only=True):
    """How to fail."""

    name: str


async def echo(parameters: EchoParameters) -> dict[str, Any]:
    """Give back
    what came.

    More words, which the summary leaves out.
    """
    return {"number": parameters.number, "payload": parameters.payload}


async def fail(parameters: FailParameters) -> None:
    """Fail."""
    raise CommandError(parameters.name, "as asked")


def registry() -> Registry:
    """Two methods."""
    methods = Registry("tests", "1.2")
    methods.add(Method("echo", EchoParameters, dict[str, Any], (), echo))
    methods.add(Method("fail", FailParameters, dict[str, Any], ("refused", "timed_out"), fail))
    return methods


def asked(body: bytes, *attachments: bytes) -> dict[str, Any]:
    """The one reply to a request."""
    reply: dict[str, Any] = orjson.loads(asyncio.run(registry().call(body, list(attachments))))
    assert reply["jsonrpc"] == "2.0"
    assert ("result" in reply) is not ("error" in reply)
    assert set(reply) <= {"jsonrpc", "id", "result", "error"}
    return reply


def request(method: str = "echo", /, **parameters: Any) -> bytes:
    """A right request with the id 7."""
    return orjson.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": parameters})


def test_a_request_gets_its_result() -> None:
    assert asked(request(number=5)) == {"jsonrpc": "2.0", "id": 7, "result": {"number": 5, "payload": ""}}


@pytest.mark.parametrize("request_id", [0, -1, 1.5, "seven", "", None, 2**53])
def test_the_reply_has_the_id_of_its_request(request_id: object) -> None:
    body = orjson.dumps({"jsonrpc": "2.0", "id": request_id, "method": "echo", "params": {"number": 1}})
    assert asked(body)["id"] == request_id


def test_a_request_without_an_id_is_answered_as_well() -> None:
    assert asked(b'{"jsonrpc":"2.0","method":"echo","params":{"number":1}}')["id"] is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"nonsense",
        b'{"jsonrpc":"2.0","method":"echo","id":7',
        b'{"jsonrpc":"2.0","method":"echo","id":7} {}',
        b"\xff\xfe",
        b'{"jsonrpc":"2.0","method":"ec\xffho","id":7}',
        b'{"jsonrpc":"2.0","method":"echo","id":"\xff"}',
        b'{"jsonrpc":"2.0","method":"echo","params":{"number":1,"payload":"\xff"},"id":7}',
        b"[" * 100_000,
    ],
)
def test_what_is_not_json_is_a_parse_error(body: bytes) -> None:
    reply = asked(body)
    if body.startswith(b"["):
        assert reply["error"]["code"] in {-32700, -32600}
        return
    assert (reply["id"], reply["error"]["code"], reply["error"]["data"]["name"]) == (None, -32700, "parse_error")


@pytest.mark.parametrize(
    "body",
    [
        b"1",
        b"null",
        b'"echo"',
        b"[]",
        b"{}",
        b'[{"jsonrpc":"2.0","method":"echo","params":{"number":1},"id":7}]',
        b'{"method":"echo","params":{"number":1}}',
        b'{"jsonrpc":"2.0"}',
        b'{"jsonrpc":"1.0","method":"echo","params":{"number":1}}',
        b'{"jsonrpc":2.0,"method":"echo","params":{"number":1}}',
        b'{"jsonrpc":"2.0","method":1}',
        b'{"jsonrpc":"2.0","method":"echo","id":true}',
        b'{"jsonrpc":"2.0","method":"echo","id":[1]}',
        b'{"jsonrpc":"2.0","method":"echo","id":{}}',
        b'{"jsonrpc":"2.0","method":"echo","id":1e999}',
    ],
)
def test_what_is_no_request_is_an_invalid_request(body: bytes) -> None:
    error = asked(body)["error"]
    assert (error["code"], error["data"]["name"]) == (-32600, "invalid_request")


def test_an_unknown_method_is_answered_with_the_known_ones() -> None:
    reply = asked(request("ehco"))
    assert (reply["id"], reply["error"]["code"]) == (7, -32601)
    assert reply["error"]["message"] == "no method 'ehco'; there are echo, fail"


@pytest.mark.parametrize(
    ("parameters", "key"),
    [
        ({}, "number"),
        ({"number": "5"}, "number"),
        ({"number": -1}, "number"),
        ({"number": 1.5}, "number"),
        ({"number": None}, "number"),
        ({"number": 1, "payload": 2}, "payload"),
        ({"number": 1, "nmber": 2}, "nmber"),
    ],
)
def test_a_wrong_parameter_is_named(parameters: dict[str, Any], key: str) -> None:
    reply = asked(request(**parameters))
    assert (reply["id"], reply["error"]["code"], reply["error"]["data"]) == (7, -32602, {"name": "invalid_params"})
    assert key in reply["error"]["message"]
    assert "$" not in reply["error"]["message"]


@pytest.mark.parametrize("raw", [b"[1]", b"[]", b"null", b"1", b'"x"'])
@pytest.mark.parametrize("attachments", [[], [b"x"]])
def test_parameters_by_position_are_invalid(raw: bytes, attachments: list[bytes]) -> None:
    reply = asked(b'{"jsonrpc":"2.0","id":7,"method":"echo","params":' + raw + b"}", *attachments)
    assert (reply["id"], reply["error"]["code"]) == (7, -32602)


@pytest.mark.parametrize("depth", [1000, 100_000])
@pytest.mark.parametrize("attachments", [[], [b"x"]])
def test_parameters_nested_without_end_are_answered_like_any_other_mistake(depth: int, attachments: list[bytes]) -> None:
    nested = b'{"deep":' + b"[" * depth + b"]" * depth + b"}"
    reply = asked(b'{"jsonrpc":"2.0","id":7,"method":"echo","params":' + nested + b"}", *attachments)
    assert reply["error"]["code"] in {-32700, -32600, -32602}


@pytest.mark.parametrize("number", [b"1e999", b"9" * 5000])
def test_a_number_out_of_all_bounds_is_an_invalid_parameter(number: bytes) -> None:
    reply = asked(b'{"jsonrpc":"2.0","id":7,"method":"echo","params":{"number":' + number + b"}}")
    assert (reply["id"], reply["error"]["code"]) == (7, -32602)
    assert reply["error"]["message"].startswith("number: ")


def test_missing_parameters_are_none() -> None:
    reply = asked(b'{"jsonrpc":"2.0","id":7,"method":"echo"}')
    assert reply["error"]["code"] == -32602
    assert "number" in reply["error"]["message"]


def test_an_attached_frame_stands_for_the_payload() -> None:
    assert asked(request(number=1), b"\x00\xff")["result"]["payload"] == "0x00ff"
    assert asked(request(number=1), b"")["result"]["payload"] == "0x"


def test_an_attached_frame_where_none_belongs_is_an_unknown_parameter() -> None:
    reply = asked(request("fail", name="refused"), b"x")
    assert reply["error"]["code"] == -32602
    assert "payload" in reply["error"]["message"]


@pytest.mark.parametrize("name", sorted(rpc.ERROR_CODES))
def test_a_command_that_cannot_be_done_says_why_with_its_own_code(name: str) -> None:
    reply = asked(request("fail", name=name))
    assert reply["id"] == 7
    assert reply["error"] == {"code": rpc.ERROR_CODES[name], "message": "as asked", "data": {"name": name}}


def test_every_error_has_a_code_of_its_own() -> None:
    assert len(set(rpc.ERROR_CODES.values())) == len(rpc.ERROR_CODES)


def test_every_error_of_a_worker_has_a_code() -> None:
    names = {UsageError.name} | {kind.name for kind in UsageError.__subclasses__()}
    # What the requests of a session and the worker itself say besides.
    names |= {"no_such_session", "timed_out", "bad_response", "session_ended", "worker_lost"}
    assert names <= set(rpc.ERROR_CODES)


def test_a_fault_of_ours_is_not_hidden_from_the_engine() -> None:
    async def broken(_: EchoParameters) -> None:
        raise RuntimeError("ours")

    methods = Registry("tests", "1")
    methods.add(Method("echo", EchoParameters, dict[str, Any], (), broken))
    with pytest.raises(RuntimeError, match="ours"):
        asyncio.run(methods.call(request(number=1), []))


def test_a_failed_reply_can_be_made_without_a_request() -> None:
    assert orjson.loads(rpc.failed(None, -32007, "stopping", "refused")) == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": -32007, "message": "stopping", "data": {"name": "refused"}},
    }


def test_the_document_describes_every_method() -> None:
    document = registry().document()
    assert document == orjson.loads(orjson.dumps(document))
    assert document["info"] == {"title": "tests", "version": "1.2"}
    described = {method["name"]: method for method in document["methods"]}
    assert set(described) == {"echo", "fail"}
    assert described["echo"]["summary"] == "Give back what came."
    assert described["echo"]["params"] == [
        {"name": "number", "required": True, "schema": {"type": "integer", "minimum": 0}},
        {"name": "payload", "required": False, "schema": {"type": "string", "default": ""}},
    ]
    assert described["fail"]["errors"] == [
        {"code": -32007, "message": "refused", "data": {"name": "refused"}},
        {"code": -32006, "message": "timed_out", "data": {"name": "timed_out"}},
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
almost_requests = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | json_values,
        "method": st.sampled_from(["echo", "fail"]) | json_values,
        "params": st.dictionaries(st.sampled_from(["number", "payload", "name"]), json_values) | json_values,
        "id": json_values,
    },
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(almost_requests | json_values, st.lists(st.binary(max_size=5), max_size=2))
def test_every_json_gets_exactly_one_reply(value: Any, attachments: list[bytes]) -> None:
    if isinstance(value, dict) and isinstance(value.get("params"), dict) and "name" in value["params"]:
        value["params"]["name"] = "refused"
    asked(msgspec.json.encode(value), *attachments)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 255))
def test_every_bytes_get_exactly_one_reply(noise: bytes, at: int, byte: int) -> None:
    asked(noise)
    harmed = bytearray(request(number=1))
    harmed[at % len(harmed)] = byte
    asked(bytes(harmed))
