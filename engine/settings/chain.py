"""Chain files: by name in `conf/`, or by path."""

from __future__ import annotations

from rlpx.engine.settings.conf import chain_names, conf_folder
from rlpx.engine.settings.files import convert_toml, exists
from rlpx.engine.settings.meaning import mistake
from rlpx.protocol.bus.places import user_path
from rlpx.protocol.eth.forkid import Chain
from rlpx.protocol.wording import Expected, nearest, wrong


def load_chain(name: str, origin: str = "--chain") -> Chain:
    """Load a chain by its name in `conf/`, or by the path of its file. Raises `ConfigError`, which names `origin`."""
    is_path = "/" in name or name.endswith(".toml")
    file = user_path(name) if is_path else conf_folder() / f"{name}.toml"
    if not exists(file):
        expected = Expected(f"one of {', '.join(chain_names())}, or a TOML file", "mainnet")
        hint = "" if is_path else nearest(name, chain_names())
        raise mistake(origin, "chain", f"{wrong(name, expected)}: {file}: no such file{hint}")
    return convert_toml(file, Chain)
