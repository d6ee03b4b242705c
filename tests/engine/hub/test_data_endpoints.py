"""The ports of the workers' data endpoints: bound at the start, kept while a worker is replaced, one for each number."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlpx.engine.hub.access import Access
from rlpx.engine.hub.data_endpoints import DataEndpoints
from rlpx.engine.settings.user_keys import UserKeys, make_key, remove_key
from rlpx.protocol.bus.control import WorkerId
from rlpx.protocol.bus.records import DataKeys
from rlpx.protocol.mistakes import ConfigError

NOBODY = Access(None)


@contextmanager
def ports(count: int) -> Iterator[int]:
    """The first of several ports in a row that were free a moment ago."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            base: int = first.getsockname()[1]
        try:
            for port in range(base, base + count):
                socket.create_server(("127.0.0.1", port)).close()
        except (OSError, OverflowError):
            continue
        yield base
        return


def test_without_a_setting_there_is_none() -> None:
    data = DataEndpoints("")
    data.start(2, NOBODY)
    assert (data.is_on, data.listening(WorkerId(0)), data.address(WorkerId(0))) == (False, [], None)


def test_each_worker_has_a_port_which_stays_until_it_is_released() -> None:
    with ports(3) as base:
        data = DataEndpoints(f"tcp://127.0.0.1:{base}")
        data.start(2, NOBODY)
        assert data.address(WorkerId(1)) == f"tcp://127.0.0.1:{base + 1}"
        inherited = data.listening(WorkerId(1))
        assert inherited == data.listening(WorkerId(1)) != data.listening(WorkerId(0))
        # A worker that is started later has the next one.
        [later] = data.listening(WorkerId(2))
        assert socket.socket(fileno=later).detach() == later
        for port in range(base, base + 3):
            socket.create_connection(("127.0.0.1", port)).close()
        data.release(WorkerId(1))
        data.release(WorkerId(9))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", base + 1))
        data.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", base))


def test_a_taken_port_is_named_at_the_start() -> None:
    with ports(2) as base, socket.create_server(("127.0.0.1", base + 1)):
        data = DataEndpoints(f"tcp://127.0.0.1:{base}")
        with pytest.raises(ConfigError, match=rf"data\.endpoint: tcp://127\.0\.0\.1:{base + 1}: .*in use") as caught:
            data.start(2, NOBODY)
        data.close()
        assert caught.value.exit_code == 69


def test_there_is_no_port_above_the_last() -> None:
    data = DataEndpoints("tcp://127.0.0.1:65535")
    with pytest.raises(OSError, match="Cannot assign requested address"):
        data.listening(WorkerId(1))


def test_workers_are_told_of_users_when_keys_change(tmp_path: Path) -> None:
    make_key(tmp_path / "keys", "reader", ["events"], tmp_path / "reader.secret")
    keys = UserKeys(tmp_path / "keys")
    data = DataEndpoints("tcp://127.0.0.1:1")
    data.start(0, Access(keys))
    assert data.keys == DataKeys(keys.server.secret)
    assert [(user.name, user.rights, len(user.public)) for user in data.users.users] == [("reader", ("events",), 32)]
    assert not data.have_users_changed()
    make_key(tmp_path / "keys", "both", ["events", "control"], tmp_path / "both.secret")
    assert data.have_users_changed()
    assert not data.have_users_changed()
    remove_key(tmp_path / "keys", "reader")
    assert data.have_users_changed()
    assert [user.name for user in data.users.users] == ["both"]
