"""The folder `conf/` and its contents: chains, and scenarios of simulated peers."""

from __future__ import annotations

from pathlib import Path


def conf_folder() -> Path:
    """Return the folder of chains and scenarios: a wheel has it inside the package, a clone beside the package."""
    here = Path(__file__).resolve().parents[1]
    return here / "conf" if (here / "conf").is_dir() else here.parent / "conf"


def chain_names() -> list[str]:
    """Return the names of the chains that come with the engine, sorted."""
    return sorted(file.stem for file in conf_folder().glob("*.toml") if file.stem != "engine")


def scenario_folder() -> Path:
    """Return the folder of the scenarios that come with the engine."""
    return conf_folder() / "swarm"


def scenario_names() -> list[str]:
    """Return the names of the scenarios that come with the engine, sorted."""
    return sorted(file.stem for file in scenario_folder().glob("*.toml"))
