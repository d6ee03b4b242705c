"""Scenario files of `rlpx-swarm`: found by name in `conf/swarm/` or by path, read, checked. A mistake is a `ConfigError`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.config import ConfigError, conf_folder, convert_toml
from protocol.swarm import Scenario


def scenario_file(name: str) -> Path:
    """The file of a scenario by its name, or by its path. Raises `ConfigError`."""
    is_path = "/" in name or name.endswith(".toml")
    file = Path(name) if is_path else conf_folder() / "swarm" / f"{name}.toml"
    if not file.exists():
        known = ", ".join(scenario_names())
        raise ConfigError(f"--scenario: {file}: no such file; there are {known}")
    return file


def scenario_names() -> list[str]:
    """The scenarios that come with the engine."""
    return sorted(file.stem for file in (conf_folder() / "swarm").glob("*.toml"))


def load_scenario(file: Path, changes: dict[str, float | int]) -> Scenario:
    """The scenario of a file, some of its numbers changed by flags. Raises `ConfigError`."""
    scenario = convert_toml(file, Scenario)
    _check_meaning(scenario, file)
    try:
        changed = msgspec.convert(msgspec.to_builtins(scenario) | changes, Scenario)
    except msgspec.ValidationError as error:
        words, _, place = str(error).partition(" - at `$.")
        flag = place.rstrip("`").replace("_", "-")
        raise ConfigError(f"--{flag}: {words[:1].lower()}{words[1:].replace('`', '')}") from error
    if changed.processes <= changed.peers:
        return changed
    if "processes" in changes:
        raise ConfigError(f"--processes: {changed.processes} are more than the {changed.peers} peers")
    return msgspec.structs.replace(changed, processes=changed.peers)


def _check_meaning(scenario: Scenario, file: Path) -> None:
    """What types cannot say. Raises `ConfigError`."""
    if not scenario.description:
        raise ConfigError(f"{file}: description: there must be one")
    if not scenario.clients.shares():
        raise ConfigError(f"{file}: clients: there must be one")
    taken = sum(scenario.faults.shares().values()) + scenario.churn.share
    if taken > 1 + 1e-9:
        raise ConfigError(f"{file}: faults: with churn.share they are {taken:g} of all peers; at most 1 fits")
    if scenario.slots.burst_s > scenario.slots.slot_s:
        raise ConfigError(f"{file}: slots.burst_s: {scenario.slots.burst_s:g} is longer than slots.slot_s")
    if scenario.processes > scenario.peers:
        raise ConfigError(f"{file}: processes: {scenario.processes} are more than the {scenario.peers} peers")
