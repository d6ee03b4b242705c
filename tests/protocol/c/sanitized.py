"""`python -m tests.protocol.c.sanitized MODULE COMMAND…`: run a module with this file as `rlpx.protocol._native`."""

from __future__ import annotations

import importlib.util
import runpy
import sys


def install(file: str) -> None:
    """Load a compiled module from where it was built, under the name that `rlpx.protocol.native` asks for."""
    spec = importlib.util.spec_from_file_location("rlpx.protocol._native", file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file} is no module of this Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules["rlpx.protocol._native"] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    install(sys.argv[1])
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
