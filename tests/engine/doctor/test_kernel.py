"""What the doctor says of the kernel's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlpx.engine.doctor import kernel
from rlpx.engine.doctor.finding import Finding, State
from rlpx.engine.doctor.kernel import Kernel

GOOD = {
    "net.core.somaxconn": "4096",
    "net.ipv4.tcp_max_syn_backlog": "1024",
    "net.core.wmem_max": "4194304",
    "net.core.rmem_max": "4194304",
    "net.ipv4.tcp_mem": "100000 200000 300000",
    "net.netfilter.nf_conntrack_max": "262144",
    "net.netfilter.nf_conntrack_count": "10",
    "net.ipv4.ip_local_port_range": "32768\t60999",
    "net.ipv4.ip_local_reserved_ports": "",
    "vm.overcommit_memory": "0",
}


def examined(folder: Path, **changes: str) -> dict[str, Finding]:
    """The findings under these settings, by name without `kernel.`."""
    values = GOOD | {name.replace("__", "."): text for name, text in changes.items()}
    for name, text in values.items():
        file = folder / "sys" / name.replace(".", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    found = kernel.examine(Kernel(folder), 10_000, 600, 30303)
    return {item.check.removeprefix("kernel."): item for item in found}


def test_all_is_well(tmp_path: Path) -> None:
    found = examined(tmp_path)
    assert {item.state for item in found.values()} == {State.OK}
    assert set(found) == set(GOOD) - {"net.netfilter.nf_conntrack_count", "net.ipv4.ip_local_reserved_ports"}


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("net.core.somaxconn", "128", "sysctl -w net.core.somaxconn=1024"),
        ("net.ipv4.tcp_max_syn_backlog", "512", "sysctl -w net.ipv4.tcp_max_syn_backlog=1024"),
        ("net.core.wmem_max", "212992", "sysctl -w net.core.wmem_max=1048576"),
        ("net.ipv4.tcp_mem", "1000 2000 3000", "net.ipv4.tcp_mem"),
        ("net.netfilter.nf_conntrack_max", "15000", "nf_conntrack_max=20010"),
        ("net.ipv4.ip_local_port_range", "60000 60100", "16384 65535"),
        ("net.ipv4.ip_local_port_range", "1024 65000", "ip_local_reserved_ports=30303"),
        ("vm.overcommit_memory", "2", "a worker may not start"),
    ],
)
def test_what_is_too_small_is_a_warning_with_the_command(tmp_path: Path, name: str, value: str, part: str) -> None:
    found = examined(tmp_path, **{name.replace(".", "__"): value})
    assert found[name].state is State.WARN
    assert part in found[name].advice
    assert [item.check for item in found.values() if item.state is not State.OK] == [f"kernel.{name}"]


def test_a_port_that_is_reserved_is_safe(tmp_path: Path) -> None:
    changes = {"net__ipv4__ip_local_port_range": "1024 65000", "net__ipv4__ip_local_reserved_ports": "8080,30300-30310"}
    assert examined(tmp_path, **changes)["net.ipv4.ip_local_port_range"].state is State.OK


def test_what_this_kernel_lacks_is_left_out(tmp_path: Path) -> None:
    assert list(kernel.examine(Kernel(tmp_path), 1, 1, 1)) == []
    assert Kernel(tmp_path, tmp_path).available_bytes() is None


def test_free_memory_is_that_of_the_machine_or_of_the_nearest_cgroup_with_a_limit(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   2048 kB\n")
    assert Kernel(tmp_path, tmp_path / "none").available_bytes() == 2048 * 1024
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("1:x:/old\n0::/a/b\n")
    groups = tmp_path / "groups"
    (groups / "a" / "b").mkdir(parents=True)
    (groups / "a" / "b" / "memory.max").write_text("max\n")
    (groups / "a" / "memory.max").write_text("1000000\n")
    (groups / "a" / "memory.current").write_text("400000\n")
    assert Kernel(tmp_path, groups).available_bytes() == 600_000
