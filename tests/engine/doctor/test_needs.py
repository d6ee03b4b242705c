"""What the doctor says of descriptors, cores, memory, files and the port."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from rlpx.engine.doctor import needs
from rlpx.engine.doctor.finding import State
from rlpx.engine.doctor.kernel import Kernel
from rlpx.engine.settings.load import Loaded
from rlpx.engine.settings.settings import LimitSettings, Settings


def machine(folder: Path, mebibytes: int) -> Kernel:
    """A machine with this much free memory."""
    (folder / "meminfo").write_text(f"MemAvailable: {mebibytes * 1024} kB\n")
    return Kernel(folder, folder / "none")


@pytest.mark.parametrize(("mebibytes", "state"), [(100, State.FAIL), (1000, State.WARN), (16_000, State.OK)])
def test_memory_is_compared_with_idle_sessions_and_with_the_worst_case(tmp_path: Path, mebibytes: int, state: State) -> None:
    found = needs.memory(Settings(), machine(tmp_path, mebibytes))
    assert found.state is state
    assert f"{mebibytes} MiB is available" in found.found
    assert needs.memory(Settings(), Kernel(tmp_path / "nothing", tmp_path)).state is State.WARN


def test_descriptors_and_cores() -> None:
    assert needs.descriptors(Settings(), 20_000).state is State.OK
    short = needs.descriptors(Settings(limits=LimitSettings(max_active_inbound=90_000)), 20_000)
    assert (short.state, "use more workers" in short.advice) == (State.FAIL, True)
    assert needs.cores(Settings(workers=2), 2).state is State.OK
    assert needs.cores(Settings(workers=3), 2).state is State.WARN


def test_a_port_that_is_free_taken_ours_or_not_of_this_machine(tmp_path: Path) -> None:
    def found(listen: str) -> list[State]:
        return [item.state for item in needs.port(Settings(listen=listen, run_dir=str(tmp_path)))]

    assert found("") == [State.OK]
    assert found("127.0.0.1:0") == [State.OK, State.WARN]
    assert found("192.0.2.1:30303")[0] is State.FAIL
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        assert found(listen) == [State.FAIL, State.WARN]
        with socket.socket(socket.AF_UNIX) as control:
            control.bind(str(tmp_path / "control.ipc"))
            control.listen()
            assert found(listen) == [State.OK, State.WARN]


@pytest.mark.parametrize(
    ("external_ip", "state", "part"),
    [
        ("8.8.8.8", State.OK, "a firewall"),
        ("192.168.1.7", State.WARN, "NAT"),
        ("100.64.0.9", State.WARN, "NAT"),
        ("127.0.0.1", State.WARN, "loopback"),
    ],
)
def test_the_address_that_peers_are_told(external_ip: str, state: State, part: str) -> None:
    [_, found] = needs.port(Settings(listen="0.0.0.0:0", external_ip=external_ip))
    assert (found.check, found.state) == ("address", state)
    assert part in found.found


def test_files_that_are_wrong_are_named(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("no key")
    key.chmod(0o600)
    settings = Settings(chain=str(tmp_path / "nowhere"), node_key=str(key), run_dir=str(tmp_path / ("x" * 120)))
    found = list(needs.files(Loaded(settings, {"chain": "flag"})))
    assert [item.state for item in found] == [State.FAIL] * 3
    settings = Settings(chain="dev", node_key=str(tmp_path / "new"), run_dir="/run/r")
    assert [item.state for item in needs.files(Loaded(settings, {"chain": "flag"}))] == [State.OK] * 3
    assert not (tmp_path / "new").exists()
    assert needs.compiled().check == "compiled"
