"""New installations, made as a user makes them: a clone that sets itself up, and an environment with the package in it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.system.harness import ROOT

VERSIONS: Final = ("3.11", "3.12", "3.13")
OUR_VERSION: Final = "{}.{}".format(*sys.version_info)
# What a clone holds beside its tests.
CLONED: Final = (
    "LICENSE",
    "README.md",
    "bin",
    "conf",
    "engine",
    "protocol",
    "pyproject.toml",
    "requirements.lock",
    "workers",
)
# The packages are downloaded, as is what builds a wheel.
INSTALL_SECONDS: Final = 500


def run(*command: str | Path, folder: Path, code: int = 0, **variables: str) -> str:
    """What a command prints, which must end with this code. It finds our packages only where they are installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    # What is used is compiled when it is used.
    environment |= {"PIP_NO_COMPILE": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def find_python(version: str) -> str | None:
    """A Python of this version that can make environments: on the path, or one that pyenv has."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}.*/bin/python{version}")))]
    if version == OUR_VERSION:
        candidates.insert(0, getattr(sys, "_base_executable", sys.executable))
    code = "import ensurepip, sys, venv; print('{}.{}'.format(*sys.version_info))"
    for python in candidates:
        # A shim of pyenv's is on the path for versions that are not chosen, too.
        if (
            python
            and subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip() == version
        ):
            return python
    return None


def copy_clone(folder: Path) -> Path:
    """A clone as it is before anything was done with it."""
    folder.mkdir()
    for name in CLONED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def make_once(folder: Path, make: Callable[[], object]) -> None:
    """Make what is in this folder, unless another process of the tests has: they share it."""
    done = folder / "done"
    with folder.with_name(f"{folder.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            # What a failed attempt has left.
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            make()
            done.touch()


@dataclass(frozen=True)
class Clone:
    """A clone that `bin/setup` has set up for one Python, entered through a link to it."""

    root: Path
    version: str

    @classmethod
    def make(cls, folder: Path, python: str, version: str) -> Clone:
        there, root = folder / "there", folder / "clone"

        def make() -> None:
            copy_clone(there)
            root.symlink_to(there)
            assert run(root / "bin" / "setup", folder=folder, PYTHON=python) == f"{there}\n"

        make_once(folder, make)
        return cls(root, version)

    @property
    def python(self) -> Path:
        return self.root / ".venv" / "bin" / "python"

    @property
    def import_path(self) -> str:
        return str(self.root / ".venv" / "house")

    @property
    def command(self) -> Path:
        return self.root / "bin" / "rlpx-engine"


@dataclass(frozen=True)
class Environment:
    """An environment in which the package is installed. Of the clone's environment it has what we depend on, and pip."""

    folder: Path
    version: str

    @classmethod
    def of_wheel(cls, folder: Path, clone: Clone) -> Environment:
        """Build the wheel of the clone and install it."""
        made = cls(folder / "environment", clone.version)

        def make() -> None:
            build = (clone.python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, clone.root)
            run(*build, folder=folder)
            (wheel,) = folder.glob("*.whl")
            made.install(clone, "--no-index", wheel)

        make_once(folder, make)
        return made

    def install(self, clone: Clone, *what: str | Path) -> None:
        """Make the environment and install this."""
        run(clone.python, "-m", "venv", "--without-pip", self.folder, folder=self.folder.parent)
        (dependencies,) = clone.root.glob(".venv/lib/python3.*/site-packages")
        (self.site / "dependencies.pth").write_text(f"{dependencies}\n")
        pip = (clone.python, "-m", "pip", "--python", self.python)
        run(*pip, "install", "--quiet", "--no-deps", *what, folder=self.folder)
        run(*pip, "check", folder=self.folder)

    @property
    def site(self) -> Path:
        (site,) = self.folder.glob("lib/python3.*/site-packages")
        return site

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def import_path(self) -> str:
        return ""

    @property
    def command(self) -> Path:
        return self.folder / "bin" / "rlpx-engine"
