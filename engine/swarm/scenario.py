"""Finds, reads and checks the scenario files of `rlpx-swarm`. A mistake raises `ConfigError`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rlpx.engine.settings.conf import scenario_folder, scenario_names
from rlpx.engine.settings.files import convert_toml, exists
from rlpx.protocol.bus.places import user_path
from rlpx.protocol.bus.swarm import Scenario
from rlpx.protocol.mistakes import ConfigError
from rlpx.protocol.wording import WrongValueError, convert, nearest


def scenario_file(name: str, flag: str = "--scenario") -> Path:
    """Return the file of a scenario, by its name in `conf/swarm/` or by its path. Raises `ConfigError`, naming the flag."""
    is_path = "/" in name or name.endswith(".toml")
    file = user_path(name) if is_path else scenario_folder() / f"{name}.toml"
    if not exists(file):
        known = ", ".join(scenario_names())
        hint = "" if is_path else nearest(name, scenario_names())
        raise ConfigError(f"{flag}: {file}: no such file; there are {known}{hint}")
    return file


def load_scenario(file: Path, changes: dict[str, float | int]) -> Scenario:
    """Read the scenario in a file; `changes` are numbers from flags. Raises `ConfigError`."""
    scenario = convert_toml(file, Scenario)
    _check_meaning(scenario, file)
    try:
        changed: Scenario = convert(msgspec.to_builtins(scenario) | changes, Scenario)
    except WrongValueError as error:
        raise ConfigError(f"--{error.place.replace('_', '-')}: {error.reason}") from error
    if changed.processes <= changed.peers:
        return changed
    if "processes" in changes:
        raise ConfigError(f"--processes: {changed.processes} are more than the {changed.peers} peers")
    return msgspec.structs.replace(changed, processes=changed.peers)


def _check_meaning(scenario: Scenario, file: Path) -> None:
    """Check what types cannot express. Raises `ConfigError`."""
    if not scenario.description:
        raise ConfigError(f"{file}: description: there must be one")
    if not scenario.clients.shares():
        raise ConfigError(f"{file}: clients: there must be one")
    taken = sum(scenario.faults.shares().values()) + scenario.churn.share
    if taken > 1 + 1e-9:
        raise ConfigError(
            f"{file}: faults: together with churn.share they are {taken:g} of all peers; at most 1 is possible"
        )
    if scenario.slots.burst_s > scenario.slots.slot_s:
        raise ConfigError(f"{file}: slots.burst_s: {scenario.slots.burst_s:g} is longer than slots.slot_s")
    if scenario.processes > scenario.peers:
        raise ConfigError(f"{file}: processes: {scenario.processes} are more than the {scenario.peers} peers")
