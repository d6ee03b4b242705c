"""`pip install .` compiles `protocol/c` where it can; where it cannot, what is installed is Python alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]  # it is the same for every kind of build
    """Puts the compiled module into the wheel, or beside its sources where those are what is installed."""

    _folder: TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, before the files are gathered."""
        root = Path(self.root)
        self._folder = TemporaryDirectory()
        target = root / "protocol" if version == "editable" else Path(self._folder.name)
        command = ["sh", root / "bin" / "compile", sys.executable, target]
        try:
            made = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own script
        except (OSError, subprocess.CalledProcessError) as error:
            words = getattr(error, "stderr", None) or error
            self.app.display_warning(f"protocol/c is not compiled, frames will be slower: {words}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        if version != "editable":
            file = Path(made.stdout.strip())
            build_data["force_include"][str(file)] = f"protocol/{file.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - hatchling's
        """The wheel has it now."""
        if self._folder is not None:
            self._folder.cleanup()
