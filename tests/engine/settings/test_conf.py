"""The folder `conf/` is found in a clone and in a wheel, and says which chains and scenarios come with the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlpx.engine.settings.conf import chain_names, conf_folder, scenario_folder, scenario_names

ROOT = Path(__file__).resolve().parents[3]


def test_a_clone_has_conf_beside_the_package() -> None:
    assert conf_folder() == ROOT / "conf"
    assert scenario_folder() == ROOT / "conf" / "swarm"


def test_a_wheel_has_conf_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tmp_path / "site" / "rlpx" / "engine"
    (engine / "conf").mkdir(parents=True)
    monkeypatch.setattr("rlpx.engine.settings.conf.__file__", str(engine / "settings" / "conf.py"))
    assert conf_folder() == engine / "conf"
    assert (chain_names(), scenario_names()) == ([], [])


def test_the_settings_are_no_chain() -> None:
    assert chain_names() == ["dev", "hoodi", "mainnet", "sepolia"]


def test_every_scenario_has_a_name() -> None:
    assert {"churn", "smoke"} <= set(scenario_names())
    assert scenario_names() == sorted(scenario_names())
