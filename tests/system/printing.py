"""A program of a user whose output a test awaits line by line."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from types import TracebackType
from typing import Self

from tests.system.harness import IMPORT_PATH, ROOT, eventually


class Printing:
    """Runs a command in the clone until the context ends. `line` awaits a line of its output."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": IMPORT_PATH, "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._printed: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def line(self, pattern: str) -> str:
        """The text that matches, once it is printed."""

        def found() -> str | None:
            match = re.search(pattern, "".join(self._printed))
            return match[0] if match else None

        text = eventually(found, f"{pattern} in {self._printed}")
        assert isinstance(text, str)
        return text

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._printed.extend(iter(self._process.stdout.readline, ""))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
