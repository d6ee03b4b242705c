"""`rlpx-watch` as a process, and a real browser: the distribution's Chromium, driven headless, if there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.system.harness import IMPORT_PATH, PATIENCE_SECONDS

NAMES: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# Chromium's own sandbox needs rights that containers lack. It opens our page alone.
ARGUMENTS: Final = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")

DESK: Final = (1280, 900)


class RunningWatch:
    """A `rlpx-watch` beside the engine of a run directory. `control` is the address with the token, if it has one."""

    def __init__(self, run_dir: Path, *flags: str) -> None:
        command = [sys.executable, "-P", "-m", "rlpx.engine.watch.command", "--run-dir", str(run_dir), *flags]
        if "--listen" not in flags:
            command += ["--listen", "127.0.0.1:0"]
        environment = {**os.environ, "PYTHONPATH": IMPORT_PATH}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        ready = self.process.stdout.readline().split()
        assert ready[:1] == ["ready"], (ready, self.process.communicate())
        self.address = ready[1]
        self.control = self.process.stdout.readline().split()[1] if "--control" in flags else ""

    def stop(self) -> str:
        """End it; returns what it wrote to stderr."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.communicate(timeout=PATIENCE_SECONDS)[1]
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        told = self.stop()
        if error is not None:
            sys.stderr.write(told)
        assert "Traceback" not in told, told
        assert self.process.returncode == 0


@contextmanager
def opened_browser() -> Iterator[Browser]:
    """A headless browser; the test is skipped if the machine has none."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium here (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class Looking:
    """A tab that looks at an address. What its scripts complain about is in `complaints`."""

    def __init__(
        self, browser: Browser, address: str, *, size: tuple[int, int] = (1280, 900), scheme: str = "light"
    ) -> None:
        self._context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
        )
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(PATIENCE_SECONDS * 1000)
        self.complaints: list[str] = []
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)

    def _on_console(self, message: ConsoleMessage) -> None:
        # A server that is gone for a moment is not a mistake of the page.
        if message.type in {"error", "warning"} and "net::ERR_" not in message.text and "Failed to load" not in message.text:
            self.complaints.append(message.text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            sys.stderr.write(f"{self.page.url}\n{self.page.inner_text('body')}\n")
        self._context.close()
        assert self.complaints == []
