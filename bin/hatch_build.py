"""`pip install .` compiles `protocol/c` where it can; where it cannot, the wheel is Python alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]  # it is the same for every kind of build
    """Puts the compiled module into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Compile, before the files are gathered."""
        folder = Path(self.directory)
        folder.mkdir(parents=True, exist_ok=True)
        command = [Path(self.root) / "bin" / "compile", sys.executable, folder]
        made = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own script
        if made.returncode:
            self.app.display_warning(f"protocol/c is not compiled, frames will be slower: {made.stderr}")
            return
        file = Path(made.stdout.strip())
        build_data["force_include"][str(file)] = f"protocol/{file.name}"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
