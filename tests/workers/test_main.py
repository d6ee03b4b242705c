"""The process of a worker: it starts on one inherited descriptor, and on nothing else."""

from __future__ import annotations

import socket

import pytest
import uvloop

from protocol import control
from protocol.control import Handoff, Handoffs, SessionId
from workers.__main__ import main, run


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["-1"], ["99999"]])
def test_without_its_descriptor_it_says_who_starts_it(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["workers", *arguments])
    with pytest.raises(SystemExit, match="usage: python -m workers FD"):
        main()


def test_an_engine_that_has_gone_before_it_said_anything_is_a_quiet_end() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        ours.close()
        uvloop.run(run(theirs))


def test_a_first_record_that_is_no_configuration_is_a_fault() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.send(control.encode_record(Handoffs((Handoff(SessionId(1)),))))
        with pytest.raises(SystemExit, match="not a configuration"):
            uvloop.run(run(theirs))
