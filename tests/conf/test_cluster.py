"""The files of conf/cluster: what can be read without a cluster is right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from rlpx.engine.settings.fields import setting_fields

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
