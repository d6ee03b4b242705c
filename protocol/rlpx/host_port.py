"""`HOST:PORT` as users write it and as events and logs show it: the only parser and the only formatter.

A host is a numeric address, in brackets if it is IPv6, or a host name.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

MAX_PORT: Final = 0xFFFF
# RFC 1035, section 2.3.4.
_HOST_NAME_MAX_CHARACTERS: Final = 253
# RFC 1123: labels of letters, digits and hyphens; resolvers also accept the underscore. The last label is not a number, as
# the name would otherwise be read as an address.
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME: Final = re.compile(rf"(?!(?:.*\.)?[0-9]+\.?$){_LABEL}(?:\.{_LABEL})*\.?", re.IGNORECASE | re.ASCII)


def format_host_port(host: str, port: int) -> str:
    """Return `HOST:PORT`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_host_port(text: str) -> tuple[str, int]:
    """Return the host, empty for all addresses, and the port of `HOST:PORT`. Raises `ValueError` with the reason."""
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError("there is no :PORT")
    if not (port.isascii() and port.isdecimal()) or int(port[:6]) > MAX_PORT:
        raise ValueError(f"the port is not a number from 0 to {MAX_PORT}")
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), int(port)
        except ValueError as error:
            raise ValueError("in the brackets is no IPv6 address") from error
    if ":" in host:
        raise ValueError("an IPv6 address is written in brackets")
    if host.replace(".", "").isdecimal():
        try:
            ipaddress.IPv4Address(host)
        except ValueError as error:
            raise ValueError("the host is no IPv4 address") from error
    elif host and not is_host_name(host):
        raise ValueError("the host is neither an address nor a name")
    return host, int(port)


def host_of(host_port: str) -> str:
    """Return the host of a `HOST:PORT` made by us, without brackets; empty if there is none."""
    return host_port.rpartition(":")[0].removeprefix("[").removesuffix("]")


def is_host_name(text: str) -> bool:
    """Whether this is a host name that can be resolved."""
    return len(text) <= _HOST_NAME_MAX_CHARACTERS and _HOST_NAME.fullmatch(text) is not None


def is_address(host: str) -> bool:
    """Whether this is a numeric address, with or without a zone."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
