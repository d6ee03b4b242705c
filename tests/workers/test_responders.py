"""Peers' requests go to registered programs in turn, within their credit and their time; else nobody answers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import rlp as oracle

from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.clockwork import Clockwork
from rlpx.protocol.bus.control import SessionId
from rlpx.protocol.bus.data_heads import Use
from rlpx.protocol.eth.kinds import message_table
from rlpx.protocol.rlpx.capabilities import Capability, Shared
from rlpx.protocol.session.events import MessageReceived
from rlpx.protocol.settings import ResponderSettings
from rlpx.workers.data_endpoint import QUEUE_BYTES, DataEndpoint
from rlpx.workers.responders import OFFERED_MAX_BYTES, Responders
from tests.fake_endpoint import FakeLoop, FakeSocket, FakeTransport, greeting, ready

TABLE = message_table((Shared(Capability("eth", 68), 16, 17),))
ONE, TWO = SessionId(1), SessionId(2)


def asked(request_id: int, message: int = 3) -> MessageReceived:
    """A request of a peer."""
    payload = bytes(oracle.encode([request_id, [1, 1, 0, 0]]))
    return MessageReceived(TABLE.find("eth", message), payload, len(payload), request_id)


class Program:
    """A program on a fake connection."""

    def __init__(self, transport: FakeTransport) -> None:
        self.transport = transport
        self.transport.link.data_received(greeting() + ready(b"DEALER"))
        self.transport.written.clear()

    def says(self, head: object, *frames: bytes) -> None:
        """The program sends a message."""
        wire = zmtp.encode([head if isinstance(head, bytes) else orjson.dumps(head), *frames])
        self.transport.link.data_received(wire)

    def hears(self) -> tuple[dict[str, Any], list[bytes]]:
        """The next message for the program."""
        head, *frames = zmtp.decode(self.transport.written.pop(0))
        return orjson.loads(head), frames

    def leaves(self) -> None:
        """The program disconnects."""
        self.transport.closing = True
        self.transport.link.connection_lost(None)


class Harness:
    """A host that keeps what responders say, and programs that come and go."""

    def __init__(self) -> None:
        self.answers: list[tuple[SessionId, int | None, bytes | None]] = []
        # When the responders that answered had been asked, and whether those that did not were late.
        self.asked_at: list[float] = []
        self.late: list[bool] = []
        self.loop = FakeLoop()
        self.listening = FakeSocket()
        self.responders = Responders(ResponderSettings(), self)
        clockwork = Clockwork(self.loop, lambda: 0.0, lambda: True)
        self.data = DataEndpoint(ResponderSettings(), clockwork, {Use.RESPONDER: self.responders}, self.on_refused)
        self.data.endpoint.listen(self.listening, "ipc")

    def on_answer(self, session: SessionId, request: MessageReceived, payload: bytes, asked_at: float) -> None:
        self.answers.append((session, request.request_id, payload))
        self.asked_at.append(asked_at)

    def on_no_answer(self, session: SessionId, request: MessageReceived, *, is_late: bool) -> None:
        self.answers.append((session, request.request_id, None))
        self.late.append(is_late)

    def on_refused(self, remote: str, cause: str, times: int) -> None:
        raise AssertionError(f"{times} from {remote}: {cause}")

    def program(self, *topics: str, credit: int = 8) -> Program:
        """A program that has registered."""
        self.listening.accepts.append("")
        self.loop.readers[self.listening.fileno()]()
        program = Program(self.loop.transports[-1])
        program.says({"register": topics, "credit": credit})
        return program

    def asks(self, message: MessageReceived, session: SessionId = ONE, now: float = 0.0) -> bool:
        return self.responders.ask(session, "ab", message, now=now)


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_nobody_takes_what_nobody_registered_for(harness: Harness) -> None:
    assert not harness.asks(asked(7))
    harness.program("eth.GetBlockBodies")
    assert not harness.asks(asked(7))


def test_a_request_and_its_answer_with_the_peers_own_id(harness: Harness) -> None:
    sock = harness.program("eth.GetBlockHeaders")
    request = asked(7)
    assert harness.asks(request)
    head, [payload] = sock.hears()
    assert payload == request.payload
    token = head.pop("token")
    # JavaScript and others read no larger integer exactly (RFC 8259, section 6).
    assert token < 1 << 53
    assert head == {
        "session": 1,
        "peer": "ab",
        "topic": "eth.GetBlockHeaders",
        "version": 68,
        "request_id": 7,
        "deadline_ms": 5000,
    }
    sock.says({"token": token}, bytes(oracle.encode([99, [[b"\x01"]]])))
    assert harness.answers == [(ONE, 7, oracle.encode([7, [[b"\x01"]]]))]
    assert harness.asked_at == [0.0]


def test_credit_bounds_what_a_program_has_and_registering_again_does_not_add_to_it(harness: Harness) -> None:
    sock = harness.program("eth.GetBlockHeaders", credit=2)
    sock.says({"register": ["eth.GetBlockHeaders"], "credit": 2})
    assert [harness.asks(asked(number)) for number in range(3)] == [True, True, False]
    head, _ = sock.hears()
    sock.says({"token": head["token"]})
    assert harness.answers == [(ONE, 0, None)]
    assert harness.asks(asked(3))


def test_programs_take_turns(harness: Harness) -> None:
    first, second = harness.program("eth.GetBlockHeaders"), harness.program("eth.GetBlockHeaders")
    for number in range(4):
        assert harness.asks(asked(number))
    assert [first.hears()[0]["request_id"] for _ in range(2)] == [0, 2]
    assert [second.hears()[0]["request_id"] for _ in range(2)] == [1, 3]


def test_what_is_not_answered_in_time_is_answered_with_nothing_once_and_counted(harness: Harness) -> None:
    sock = harness.program("eth.GetBlockHeaders", credit=1)
    assert harness.asks(asked(7), now=10)
    harness.responders.expire(now=14.9)
    assert harness.answers == []
    harness.responders.expire(now=15)
    harness.responders.expire(now=16)
    assert (harness.answers, harness.responders.unanswered) == ([(ONE, 7, None)], 1)
    assert harness.late == [True]
    # It still has that request: only its late answer frees the credit.
    assert not harness.asks(asked(8), now=16)
    head, _ = sock.hears()
    sock.says({"token": head["token"]}, b"\xc2\x01\xc0")
    assert harness.answers == [(ONE, 7, None)]
    assert harness.asks(asked(8), now=17)


def test_what_a_program_had_that_leaves_goes_to_another_one_at_once(harness: Harness) -> None:
    gone = harness.program("eth.GetBlockHeaders")
    assert harness.asks(asked(7), now=10)
    here = harness.program("eth.GetBlockHeaders")
    gone.leaves()
    head, [payload] = here.hears()
    assert (head["request_id"], payload) == (7, asked(7).payload)
    here.says({"token": head["token"]}, b"\xc2\x01\xc0")
    assert harness.answers == [(ONE, 7, b"\xc2\x07\xc0")]


def test_what_a_program_had_that_leaves_is_answered_with_nothing_at_once_where_there_is_no_other(harness: Harness) -> None:
    gone = harness.program("eth.GetBlockHeaders")
    full = harness.program("eth.GetBlockHeaders", credit=0)
    assert harness.asks(asked(7))
    assert harness.asks(asked(8), TWO)
    gone.leaves()
    assert harness.answers == [(ONE, 7, None), (TWO, 8, None)]
    assert not harness.asks(asked(9))
    assert full.transport.written == []


def test_what_moves_to_another_program_keeps_its_deadline(harness: Harness) -> None:
    gone = harness.program("eth.GetBlockHeaders", credit=1)
    here = harness.program("eth.GetBlockHeaders")
    assert harness.asks(asked(1), now=10)
    assert harness.asks(asked(2), now=12)
    gone.leaves()
    harness.responders.expire(now=15)
    assert harness.answers == [(ONE, 1, None)]
    harness.responders.expire(now=17)
    assert harness.answers == [(ONE, 1, None), (ONE, 2, None)]
    here.leaves()
    assert len(harness.answers) == 2


def test_programs_that_left_cost_nothing(harness: Harness) -> None:
    for _ in range(1000):
        harness.program("eth.GetBlockHeaders").leaves()
    assert (harness.data.endpoint.connections, harness.responders.count) == (0, 0)
    assert not harness.asks(asked(7))


def test_a_program_that_reads_nothing_is_passed_over_once_its_queue_is_full(harness: Harness) -> None:
    deaf = harness.program("eth.GetBlockHeaders", credit=1024)
    deaf.transport.is_blocked = True
    large = MessageReceived(asked(1).kind, bytes(OFFERED_MAX_BYTES), OFFERED_MAX_BYTES, 1)
    taken = 0
    while harness.asks(large):
        taken += 1
    assert taken == QUEUE_BYTES // OFFERED_MAX_BYTES - 1
    harness.program("eth.GetBlockHeaders")
    assert harness.asks(large)
    deaf.transport.drain()
    assert harness.asks(large)


def test_a_program_may_register_for_something_else(harness: Harness) -> None:
    program = harness.program("eth.GetBlockHeaders", "eth.GetReceipts")
    program.says({"register": ["eth.GetBlockBodies"], "credit": 1})
    assert not harness.asks(asked(7))


@pytest.mark.parametrize("topics", [["x" * 65], ["x"] * 65])
def test_what_a_program_registers_is_bounded(harness: Harness, topics: list[str]) -> None:
    program = harness.program()
    program.says({"register": topics, "credit": 1})
    error = program.hears()[0]["error"]
    assert (
        'not understood: expected {"register": [up to 64 topics], "credit": 0 to 1024} or {"token": number}; got ' in error
    )
    assert "`" not in error


@pytest.mark.parametrize(
    "head", [b"no json", b"[]", b"\xff", b'{"credit": -1}', b'{"credit": 1025}', b'{"nonsense": 1}', b""]
)
def test_what_is_not_understood_is_told_and_harms_nobody(harness: Harness, head: bytes) -> None:
    sock = harness.program("eth.GetBlockHeaders")
    sock.says(head)
    assert "not understood" in sock.hears()[0]["error"]
    assert harness.asks(asked(7))


def test_an_answer_that_is_no_list_is_told_and_the_peer_gets_nothing(harness: Harness) -> None:
    sock = harness.program("eth.GetBlockHeaders")
    harness.asks(asked(7))
    head, _ = sock.hears()
    sock.says({"token": head["token"]}, b"\x80")
    assert harness.answers == [(ONE, 7, None)]
    assert "token" in sock.hears()[0]["error"]


def test_nobody_answers_for_somebody_else(harness: Harness) -> None:
    first = harness.program("eth.GetBlockHeaders")
    harness.asks(asked(7))
    head, _ = first.hears()
    other = harness.program("eth.GetBlockBodies")
    other.says({"token": head["token"]}, b"\xc2\x01\xc0")
    other.says({"token": 12345}, b"\xc2\x01\xc0")
    assert harness.answers == []


def test_an_answer_to_what_it_never_had_gives_a_program_no_room(harness: Harness) -> None:
    sock = harness.program("eth.GetBlockHeaders", credit=1)
    for token in range(20):
        sock.says({"token": token})
    assert [harness.asks(asked(number)) for number in range(3)] == [True, False, False]


def test_a_program_of_an_earlier_version_may_say_when_it_started(harness: Harness) -> None:
    program = harness.program()
    program.says({"register": ["eth.GetBlockHeaders"], "credit": 1, "start": 5})
    assert harness.asks(asked(2))


def test_a_request_too_long_to_be_honest_is_not_kept(harness: Harness) -> None:
    harness.program("eth.GetBlockHeaders")
    request = asked(1)
    assert not harness.asks(MessageReceived(request.kind, bytes(256 * 1024 + 1), 100, 1))
