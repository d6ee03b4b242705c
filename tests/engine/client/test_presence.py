"""A program learns that there is no engine once its patience ends, and at once if the place belongs to another user."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from rlpx.engine.client import presence
from rlpx.engine.client.client import Client
from rlpx.engine.client.presence import EndpointError, EngineForbiddenError, EngineUnavailableError, Presence, check_there
from rlpx.engine.client.subscriber import Subscriber
from rlpx.engine.client.topics import UnknownTopicWarning


def forbidden(*_: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_where_somebody_listens_nothing_is_said(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "x.ipc"))
        listening.listen()
        check_there(f"ipc://{tmp_path}/x.ipc")
        Presence(f"ipc://{tmp_path}/x.ipc", 0.0).check()


def test_nobody_is_waited_for_as_long_as_the_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(presence, "monotonic", lambda: clock[0])
    there = Presence(f"ipc://{tmp_path}/none.ipc", 5.0)
    there.check()
    clock[0] = 104.9
    there.check()
    clock[0] = 105.5
    with pytest.raises(EngineUnavailableError, match=r"^no engine at ipc://.*/none\.ipc for 5 s$"):
        there.check()


def test_who_comes_back_is_waited_for_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(presence, "monotonic", lambda: clock[0])
    there = Presence(f"ipc://{tmp_path}/x.ipc", 5.0)
    there.check()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "x.ipc"))
        listening.listen()
        clock[0] = 104.0
        there.check()
    clock[0] = 106.0
    there.check()


def test_who_was_heard_meanwhile_is_waited_for_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine restarts, sends without a pause, and restarts again."""
    clock = [100.0]
    monkeypatch.setattr(presence, "monotonic", lambda: clock[0])
    there = Presence(f"ipc://{tmp_path}/none.ipc", 5.0)
    there.check()
    there.heard()
    clock[0] = 200.0
    there.check()
    clock[0] = 204.9
    there.check()


def test_another_users_directory_is_a_matter_of_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    with pytest.raises(EngineForbiddenError) as caught:
        check_there(f"ipc://{tmp_path}/control.ipc")
    words = f"ipc://{tmp_path}/control.ipc: Permission denied: {tmp_path} belongs to uid {os.getuid()}"
    assert (str(caught.value), caught.value.exit_code) == (words, 77)
    with pytest.raises(EngineForbiddenError):
        Presence(f"ipc://{tmp_path}/control.ipc", 60.0).check()


@pytest.mark.parametrize(
    "endpoint", ["", "nonsense", "tcp://", "tcp://host", "tcp://host:x", "udp://a:1", "ipc://", "tcp://:5"]
)
def test_what_is_no_endpoint_is_told_with_an_example(endpoint: str) -> None:
    for make in (Client, lambda given: Subscriber(given, [""])):
        with pytest.raises(
            EndpointError, match=r"^expected tcp://HOST:PORT or ipc://PATH as an endpoint, for example tcp://"
        ):
            make(endpoint)


def test_a_subscriber_of_nobody_ends(tmp_path: Path) -> None:
    with (
        Subscriber.of(tmp_path, ["eth."], timeout_seconds=0.0) as events,
        pytest.raises(EngineUnavailableError, match="no engine at ipc://"),
    ):
        next(iter(events))


def test_letters_are_no_topics(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"topics: expected a list .* got 'eth\.'"):
        Subscriber.of(tmp_path, "eth.")


def test_a_topic_that_cannot_be_is_a_warning_with_the_nearest(tmp_path: Path) -> None:
    with pytest.warns(UnknownTopicWarning, match=r"did you mean eth\.Transactions") as caught:
        Subscriber.of(tmp_path, ["eth.Transaction.", "session."]).close()
    assert Path(caught[0].filename) == Path(__file__)
