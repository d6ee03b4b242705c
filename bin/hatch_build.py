"""`pip install .` compiles `protocol/c` if it can; if it cannot, only the Python code is installed.

`pip install -e .` uses the clone as it is, through the links that `bin/setup` makes too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES: Final = ("engine", "workers", "protocol")


def link_packages(root: Path) -> None:
    """Make the folder that has the packages under their one name, as `bin/setup` does."""
    house = root / ".venv" / "house" / "rlpx"
    house.mkdir(parents=True, exist_ok=True)
    for name in PACKAGES:
        if not (house / name).is_symlink():
            (house / name).symlink_to(Path("..", "..", "..", name))


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]  # the hook is the same for every kind of build
    """Puts the compiled module into the wheel, or beside its sources in an editable installation."""

    _folder: TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, before hatchling collects the files."""
        root = Path(self.root)
        if version == "editable":
            link_packages(root)
        self._folder = TemporaryDirectory()
        target = root / "protocol" if version == "editable" else Path(self._folder.name)
        command = ["sh", root / "bin" / "compile", sys.executable, target]
        try:
            made = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own script
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or error
            self.app.display_warning(f"protocol/c is not compiled, frames will be slower: {reason}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        if version != "editable":
            file = Path(made.stdout.strip())
            build_data["force_include"][str(file)] = f"protocol/{file.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - hatchling's
        """Remove the compiled module, which the wheel now contains."""
        if self._folder is not None:
            self._folder.cleanup()
