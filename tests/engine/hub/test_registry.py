"""One reply for each request, whatever it is: the right code, the request's id, the key that is wrong."""

from __future__ import annotations

import asyncio
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from rlpx.engine.hub.registry import Registry
from rlpx.engine.operations.handlers import Handlers
from rlpx.protocol.bus import commands
from rlpx.protocol.bus.commands import Command, Parameters
from rlpx.protocol.bus.error_codes import ERROR_CODES, CommandError
from rlpx.protocol.bus.json_rpc import Attached
from rlpx.protocol.errors import ErrorName
from tests.generated import examples


class EchoParameters(Parameters, frozen=True, kw_only=True):
    """Give back
    what came. More words, which the summary leaves out.
    """

    number: Annotated[int, Meta(ge=0)]
    payload: str = "0x"
    binary: bool = False


class FailParameters(Parameters, frozen=True, kw_only=True):
    """The error to raise."""

    name: str


class EchoingEngine:
    """The handlers of two commands."""

    async def echo(self, parameters: EchoParameters, payload: bytes) -> dict[str, Any] | Attached:
        """Return the parameters."""
        if parameters.binary:
            return Attached({"number": parameters.number}, payload)
        return {"number": parameters.number, "payload": payload.hex()}

    async def fail_as_asked(self, parameters: FailParameters) -> None:
        """Raise the error with this name."""
        raise CommandError(ErrorName(parameters.name), "as asked")


COMMANDS = {
    "echo": Command("echo", EchoParameters, dict[str, Any], ()),
    "fail-as-asked": Command("fail-as-asked", FailParameters, None, (ErrorName.REFUSED, ErrorName.TIMED_OUT)),
}


def registry(engine: object = None) -> Registry:
    """Two commands."""
    return Registry("1.2", [engine or EchoingEngine()], COMMANDS)


def asked(body: bytes, *attachments: bytes) -> dict[str, Any]:
    """The one reply to a request."""
    reply: dict[str, Any] = orjson.loads(asyncio.run(registry().call(body, list(attachments))).body)
    assert reply["jsonrpc"] == "2.0"
    assert ("result" in reply) is not ("error" in reply)
    assert set(reply) <= {"jsonrpc", "id", "result", "error"}
    return reply


def request(method: str = "echo", /, **parameters: Any) -> bytes:
    """A valid request with the id 7."""
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
    assert reply["error"]["message"] == "no method 'ehco'; there are echo, fail-as-asked"


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
    assert asked(request(number=1), b"\x00\xff")["result"]["payload"] == "00ff"
    assert asked(request(number=1), b"")["result"]["payload"] == ""


def test_a_result_may_have_its_payload_in_a_frame() -> None:
    reply = asyncio.run(registry().call(request(number=1, binary=True), [b"\x00\xff"]))
    assert orjson.loads(reply.body)["result"] == {"number": 1}
    assert reply.payload == b"\x00\xff"


def test_an_attached_frame_where_none_belongs_is_an_unknown_parameter() -> None:
    reply = asked(request("fail-as-asked", name="refused"), b"x")
    assert reply["error"]["code"] == -32602
    assert "payload" in reply["error"]["message"]


@pytest.mark.parametrize("name", sorted(ERROR_CODES))
def test_a_command_that_cannot_be_done_says_why_with_its_own_code(name: ErrorName) -> None:
    reply = asked(request("fail-as-asked", name=name))
    assert reply["id"] == 7
    assert reply["error"] == {"code": ERROR_CODES[name], "message": "as asked", "data": {"name": name}}


async def test_a_fault_of_ours_is_not_hidden_from_the_engine() -> None:
    class BrokenEngine(EchoingEngine):
        async def echo(self, parameters: EchoParameters, payload: bytes) -> dict[str, Any]:
            del payload
            raise RuntimeError(f"ours {parameters.number}")

    methods = registry(BrokenEngine())
    with pytest.raises(RuntimeError, match="ours"):
        await methods.call(request(number=1), [])


def test_a_command_has_exactly_one_handler() -> None:
    with pytest.raises(TypeError, match="fail-as-asked has 0 handlers named fail_as_asked"):
        Registry("1", [], {"fail-as-asked": COMMANDS["fail-as-asked"]})
    with pytest.raises(TypeError, match="echo has 2 handlers"):
        Registry("1", [EchoingEngine(), EchoingEngine()], COMMANDS)


@pytest.mark.parametrize("command", commands.COMMANDS.values(), ids=list(commands.COMMANDS))
def test_each_handler_of_the_engine_takes_and_gives_what_its_command_declares(command: Command) -> None:
    owners = [Registry, *get_type_hints(Handlers).values()]
    [owner] = [owner for owner in owners if hasattr(owner, command.handler_name)]
    hints = get_type_hints(getattr(owner, command.handler_name))
    result = hints.pop("return")
    if get_origin(result) is UnionType:
        # The payload of the result may be a frame.
        result, attached = get_args(result)
        assert attached is Attached
    assert hints.pop("payload", None) is (bytes if command.has_payload else None)
    [parameters] = hints.values()
    # A command without parameters can stand for any other that has none.
    assert issubclass(command.parameters, parameters)
    assert command.parameters.__struct_fields__ == parameters.__struct_fields__
    # The sessions of a snapshot are encoded already.
    assert (get_origin(result) or result) == (get_origin(command.result) or command.result)
    if get_origin(result) in (list, dict):
        assert get_args(result) == get_args(command.result)


def test_the_document_describes_every_method() -> None:
    document = registry().document()
    assert document == orjson.loads(orjson.dumps(document))
    assert document["info"] == {"title": "rlpx-engine", "version": "1.2"}
    described = {method["name"]: method for method in document["methods"]}
    assert set(described) == {"echo", "fail-as-asked"}
    assert described["echo"]["summary"] == "Give back what came."
    assert described["echo"]["params"] == [
        {"name": "number", "required": True, "schema": {"type": "integer", "minimum": 0}},
        {"name": "payload", "required": False, "schema": {"type": "string", "default": "0x"}},
        {"name": "binary", "required": False, "schema": {"type": "boolean", "default": False}},
    ]
    assert described["echo"]["description"] == "Give back what came. More words, which the summary leaves out."
    assert described["fail-as-asked"]["errors"] == [
        {"code": -32602, "message": "invalid_params", "data": {"name": "invalid_params"}},
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
        "method": st.sampled_from(["echo", "fail-as-asked"]) | json_values,
        "params": st.dictionaries(st.sampled_from(["number", "payload", "name"]), json_values) | json_values,
        "id": json_values,
    },
)


@examples(300)
@given(almost_requests | json_values, st.lists(st.binary(max_size=5), max_size=2))
def test_every_json_gets_exactly_one_reply(value: Any, attachments: list[bytes]) -> None:
    if isinstance(value, dict) and isinstance(value.get("params"), dict) and "name" in value["params"]:
        value["params"]["name"] = "refused"
    asked(msgspec.json.encode(value), *attachments)


@examples(300)
@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 255))
def test_every_bytes_get_exactly_one_reply(noise: bytes, at: int, byte: int) -> None:
    asked(noise)
    harmed = bytearray(request(number=1))
    harmed[at % len(harmed)] = byte
    asked(bytes(harmed))
