"""Who answers peers' requests: registered programs in turn, within their credit and their time, else nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import rlp as oracle
import zmq

from protocol.capabilities import Shared
from protocol.control import SessionId
from protocol.events import MessageReceived
from protocol.messages import message_table
from protocol.p2p import Capability
from workers.responder import Responders

TABLE = message_table((Shared(Capability("eth", 68), 16, 17),))
PATIENCE_MILLISECONDS = 5000
ONE, TWO = SessionId(1), SessionId(2)


def asked(request_id: int, message: int = 3) -> MessageReceived:
    """A request of a peer."""
    payload = bytes(oracle.encode([request_id, [1, 1, 0, 0]]))
    return MessageReceived(TABLE.find("eth", message), payload, len(payload), request_id)


class Scene:
    """A worker that keeps what its responders say, and programs that come and go."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.answers: list[tuple[SessionId, int | None, bytes | None]] = []
        self.programs: list[zmq.Socket[bytes]] = []
        self.responders = Responders("inproc://responders", 5.0, self.context, self)

    def on_answer(self, session: SessionId, request: MessageReceived, payload: bytes) -> None:
        self.answers.append((session, request.request_id, payload))

    def on_no_answer(self, session: SessionId, request: MessageReceived) -> None:
        self.answers.append((session, request.request_id, None))

    def program(self, *topics: str, credit: int = 8) -> zmq.Socket[bytes]:
        """A program that has registered."""
        sock = self.context.socket(zmq.DEALER)
        sock.setsockopt(zmq.LINGER, 0)
        sock.connect("inproc://responders")
        self.programs.append(sock)
        self.says(sock, {"register": topics, "credit": credit})
        return sock

    def says(self, sock: zmq.Socket[bytes], head: object, *frames: bytes) -> None:
        """A program says something, and the worker has read it."""
        sock.send_multipart([head if isinstance(head, bytes) else orjson.dumps(head), *frames])
        self.responders.read()

    def asks(self, message: MessageReceived, session: SessionId = ONE, now: float = 0.0) -> bool:
        return self.responders.ask(session, "ab", message, now=now)

    def hears(self, sock: zmq.Socket[bytes]) -> tuple[dict[str, Any], list[bytes]]:
        """What a program hears next."""
        assert sock.poll(PATIENCE_MILLISECONDS)
        head, *frames = sock.recv_multipart()
        return orjson.loads(head), frames

    def close(self) -> None:
        for sock in self.programs:
            sock.close()
        self.responders.close()
        self.context.term()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


def test_nobody_takes_what_nobody_registered_for(scene: Scene) -> None:
    assert not scene.asks(asked(7))
    scene.program("eth.GetBlockBodies")
    assert not scene.asks(asked(7))


def test_a_request_and_its_answer_with_the_peers_own_id(scene: Scene) -> None:
    sock = scene.program("eth.GetBlockHeaders")
    request = asked(7)
    assert scene.asks(request)
    head, [payload] = scene.hears(sock)
    assert payload == request.payload
    token = head.pop("token")
    assert head == {
        "session": 1,
        "peer": "ab",
        "topic": "eth.GetBlockHeaders",
        "version": 68,
        "request_id": 7,
        "deadline_ms": 5000,
    }
    scene.says(sock, {"token": token}, bytes(oracle.encode([99, [[b"\x01"]]])))
    assert scene.answers == [(ONE, 7, oracle.encode([7, [[b"\x01"]]]))]


def test_credit_bounds_what_a_program_has_and_registering_again_does_not_add_to_it(scene: Scene) -> None:
    sock = scene.program("eth.GetBlockHeaders", credit=2)
    scene.says(sock, {"register": ["eth.GetBlockHeaders"], "credit": 2})
    assert [scene.asks(asked(number)) for number in range(3)] == [True, True, False]
    head, _ = scene.hears(sock)
    scene.says(sock, {"token": head["token"]})
    assert scene.answers == [(ONE, 0, None)]
    assert scene.asks(asked(3))


def test_programs_take_turns(scene: Scene) -> None:
    first, second = scene.program("eth.GetBlockHeaders"), scene.program("eth.GetBlockHeaders")
    for number in range(4):
        assert scene.asks(asked(number))
    assert [scene.hears(first)[0]["request_id"] for _ in range(2)] == [0, 2]
    assert [scene.hears(second)[0]["request_id"] for _ in range(2)] == [1, 3]


def test_what_is_not_answered_in_time_is_answered_with_nothing_once_and_counted(scene: Scene) -> None:
    sock = scene.program("eth.GetBlockHeaders", credit=1)
    assert scene.asks(asked(7), now=10)
    scene.responders.expire(now=14.9)
    assert scene.answers == []
    scene.responders.expire(now=15)
    scene.responders.expire(now=16)
    assert (scene.answers, scene.responders.unanswered) == ([(ONE, 7, None)], 1)
    # It still has that one: only its late answer frees it.
    assert not scene.asks(asked(8), now=16)
    head, _ = scene.hears(sock)
    scene.says(sock, {"token": head["token"]}, b"\xc2\x01\xc0")
    assert scene.answers == [(ONE, 7, None)]
    assert scene.asks(asked(8), now=17)


def test_a_program_that_has_gone_is_forgotten(scene: Scene) -> None:
    gone, here = scene.program("eth.GetBlockHeaders"), scene.program("eth.GetBlockHeaders", credit=100)
    gone.close()
    # ZeroMQ closes in a thread of its own. While it has not, every second request is lost to the one that is closing.
    in_a_row = 0
    for session in range(100):
        assert scene.asks(asked(7), SessionId(session))
        in_a_row = in_a_row + 1 if here.poll(100) and here.recv_multipart() else 0
        if in_a_row == 3:
            break
    assert in_a_row == 3


@pytest.mark.parametrize(
    "head", [b"no json", b"[]", b"\xff", b'{"credit": -1}', b'{"credit": 1025}', b'{"nonsense": 1}', b""]
)
def test_what_is_not_understood_is_told_and_harms_nobody(scene: Scene, head: bytes) -> None:
    sock = scene.program("eth.GetBlockHeaders")
    scene.says(sock, head)
    assert "not understood" in scene.hears(sock)[0]["error"]
    assert scene.asks(asked(7))


def test_an_answer_that_is_no_list_is_told_and_the_peer_gets_nothing(scene: Scene) -> None:
    sock = scene.program("eth.GetBlockHeaders")
    scene.asks(asked(7))
    head, _ = scene.hears(sock)
    scene.says(sock, {"token": head["token"]}, b"\x80")
    assert scene.answers == [(ONE, 7, None)]
    assert "token" in scene.hears(sock)[0]["error"]


def test_nobody_answers_for_somebody_else(scene: Scene) -> None:
    first = scene.program("eth.GetBlockHeaders")
    scene.asks(asked(7))
    head, _ = scene.hears(first)
    other = scene.program("eth.GetBlockBodies")
    scene.says(other, {"token": head["token"]}, b"\xc2\x01\xc0")
    scene.says(other, {"token": 12345}, b"\xc2\x01\xc0")
    assert scene.answers == []


def test_an_answer_to_what_it_never_had_gives_a_program_no_room(scene: Scene) -> None:
    sock = scene.program("eth.GetBlockHeaders", credit=1)
    for token in range(20):
        scene.says(sock, {"token": token})
    assert [scene.asks(asked(number)) for number in range(3)] == [True, False, False]


def test_a_program_that_starts_again_under_its_name_has_its_room_again(scene: Scene) -> None:
    sock = scene.program("eth.GetBlockHeaders", credit=1)
    assert scene.asks(asked(1))
    scene.says(sock, {"register": ["eth.GetBlockHeaders"], "credit": 1, "start": 5})
    assert scene.asks(asked(2))


def test_a_request_too_long_to_be_honest_is_not_kept(scene: Scene) -> None:
    scene.program("eth.GetBlockHeaders")
    request = asked(1)
    assert not scene.asks(MessageReceived(request.kind, bytes(256 * 1024 + 1), 100, 1))
