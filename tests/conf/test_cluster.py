"""The files of conf/cluster: what can be read without a cluster is right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import nats as nats_client
import pytest
from nats.js.api import StreamConfig

from rlpx.engine.settings.fields import setting_fields
from tests.system.cluster_fleet import Nats
from tests.system.harness import IMPORT_PATH

CLUSTER: Final = Path(__file__).resolve().parents[2] / "conf" / "cluster"
MANIFESTS: Final = ("compose.yaml", "kubernetes.yaml")


def test_a_nats_server_takes_the_settings() -> None:
    server = Path(sys.executable).parent / "nats-server"
    environment = {**os.environ, "NATS_HOST_PASSWORD": "one", "NATS_READER_PASSWORD": "two"}
    done = subprocess.run(
        [server, "-t", "-c", CLUSTER / "nats.conf"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "is valid" in done.stderr


async def test_the_reader_may_read_the_whole_stream_of_lives_and_write_nothing() -> None:
    conf = (CLUSTER / "nats.conf").read_text(encoding="utf-8")
    users = re.sub(r"\$NATS_(HOST|READER)_PASSWORD", "secret", conf[conf.index("authorization {") :])
    # Once above the 2 MB that a server sends before it waits for answers.
    count, body = 3000, bytes(1024)
    with Nats(settings=users) as nats:
        host = await nats_client.connect(nats.url.replace("//", "//host:secret@"))
        await host.jetstream().add_stream(StreamConfig(name="rlpx_fleet", subjects=["rlpx.fleet.*.session.*"]))
        for _ in range(count):
            await host.publish("rlpx.fleet.a.session.opened", body)
        await host.flush()
        reader = await nats_client.connect(nats.url.replace("//", "//reader:secret@"), error_cb=_ignore)
        stream = reader.jetstream()
        pushed = await stream.subscribe("rlpx.fleet.>", ordered_consumer=True)
        for _ in range(count):
            await pushed.next_msg(10.0)
        pulled = await stream.pull_subscribe("rlpx.fleet.>", stream="rlpx_fleet")
        assert len(await pulled.fetch(10, timeout=10.0)) == 10
        assert await stream.delete_consumer("rlpx_fleet", (await pushed.consumer_info()).name)
        await reader.publish("rlpx.fleet.a.session.opened", body)
        await reader.flush()
        assert (await stream.stream_info("rlpx_fleet")).state.messages == count
        for client in (reader, host):
            await client.close()


async def _ignore(_error: Exception) -> None:
    """The server complains of what the reader may not do."""


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_engine_knows_every_variable(name: str) -> None:
    text = (CLUSTER / name).read_text(encoding="utf-8")
    given = set(re.findall(r"RLPX_ENGINE_[A-Z_]+", text))
    assert given
    assert given <= {item.variable for item in setting_fields()}


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_state_of_a_host_is_where_the_image_has_it(name: str) -> None:
    image = (CLUSTER.parent / "Containerfile").read_text(encoding="utf-8")
    assert '"/var/lib/rlpx-engine"' in image
    assert "/var/lib/rlpx-engine" in (CLUSTER / name).read_text(encoding="utf-8")


def test_the_probes_are_paths_of_rlpx_watch() -> None:
    text = (CLUSTER / "kubernetes.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"path: (/\w+), port: watch", text)) == {"/healthz", "/readyz"}


def test_the_engine_takes_the_variables_of_the_compose_file(tmp_path: Path) -> None:
    text = (CLUSTER / "compose.yaml").read_text(encoding="utf-8").replace("${NATS_HOST_PASSWORD}", "secret")
    given = {name: value.strip('"') for name, value in re.findall(r"^ +(RLPX_ENGINE_\w+): (.+)$", text, re.MULTILINE)}
    assert len(given) == 4
    done = subprocess.run(
        [sys.executable, "-P", "-m", "rlpx.engine", "--check", "--cluster-host", "host-a"],
        # Short, for the 107 bytes of a Unix socket's path.
        env={"PYTHONPATH": IMPORT_PATH, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/nobody", **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pod_can_make_its_run_directory_and_keeps_its_node_key_to_itself() -> None:
    text = (CLUSTER / "kubernetes.yaml").read_text(encoding="utf-8")
    # The folder of a volume belongs to root, and the engine refuses a run directory of another user.
    (run,) = re.findall(r"name: run, mountPath: (\S+) }", text)
    assert f"{{ name: XDG_RUNTIME_DIR, value: {run} }}" in text
    # Otherwise Kubernetes lets the group read the key at each start, and the engine refuses it then.
    assert "fsGroupChangePolicy: OnRootMismatch" in text
