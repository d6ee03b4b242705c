"""The version of the installed package."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("rlpx-engine")
except PackageNotFoundError:  # a clone that runs from its own folder
    VERSION = "0.1.0"
