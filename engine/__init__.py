"""The one process that no peer's bytes reach: listener, ledger of all sessions, workers, and the users' sockets."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("rlpx-engine")
except PackageNotFoundError:  # a clone that runs from its own folder
    VERSION = "0.1.0"
