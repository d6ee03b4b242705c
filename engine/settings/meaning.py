"""Checks that types cannot express: addresses, networks, endpoints and enode URLs must be valid, and fit each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from rlpx.engine.settings.addresses import external_address, is_loopback_endpoint, network, tcp_endpoint
from rlpx.engine.settings.fields import VARIABLE_PREFIX, setting_fields, value_of
from rlpx.engine.settings.protocols import Protocols, parse_sub_protocol
from rlpx.engine.settings.settings import ProtocolSettings, Settings
from rlpx.protocol.mistakes import ConfigError
from rlpx.protocol.rlpx.enode import parse_enode
from rlpx.protocol.rlpx.host_port import is_host_name, parse_host_port
from rlpx.protocol.wording import Expected, expected_of, item_of, wrong

MAX_PORT: Final = 65535


def host_name(text: str) -> None:
    """Check a host name. Raises `ValueError`."""
    if not is_host_name(text):
        raise ValueError("it is not a host name")


# Each check raises `ValueError` with the reason. Lists are checked item by item; an empty text is not checked.
_MEANINGS: Final[dict[str, Callable[[str], object]]] = {
    "listen": parse_host_port,
    "watch": parse_host_port,
    "watch_host_names": host_name,
    "external_ip": external_address,
    "throttle.exempt_cidrs": network,
    "access.allow_cidrs": network,
    "access.deny_cidrs": network,
    "protocols.extra": parse_sub_protocol,
    "peers.static": parse_enode,
    "peers.trusted": parse_enode,
    "control.endpoint": tcp_endpoint,
    "events.endpoint": tcp_endpoint,
    "data.endpoint": tcp_endpoint,
}


def check_meaning(settings: Settings, origins: Mapping[str, str]) -> None:
    """Check addresses, networks, endpoints and enodes, and values that depend on each other. Raises `ConfigError`."""
    for item in setting_fields():
        check = _MEANINGS.get(item.key)
        if check is None:
            continue
        found = value_of(settings, item)
        for value in found if item.is_list else [found] if found else []:
            try:
                check(value)
            except ValueError as error:
                reason = wrong(value, expected_of(item_of(item.kind)), str(error))
                raise mistake(origins[item.key], item.key, reason) from error
    _check_protocols(settings.protocols, origins)
    endpoints = {
        "control.endpoint": settings.control.endpoint,
        "events.endpoint": settings.events.endpoint,
        "data.endpoint": settings.data.endpoint,
    }
    for key, endpoint in endpoints.items():
        if endpoint and settings.curve.insecure and not is_loopback_endpoint(endpoint):
            reason = f"{endpoint} is not on loopback, and curve.insecure is for loopback only: anybody could send commands"
            raise mistake(origins[key], key, reason)
    _check_data_ports(settings, origins)
    _check_cluster(settings, origins)
    if settings.responders.answer_s >= settings.timeouts.ping_s:
        # While requests of a peer wait for answers, its pongs are not read.
        key = "timeouts.ping_s" if origins["responders.answer_s"] == "default" else "responders.answer_s"
        reason = (
            f"responders.answer_s must be below timeouts.ping_s; they are {settings.responders.answer_s:g} and "
            f"{settings.timeouts.ping_s:g}"
        )
        raise mistake(origins[key], key, reason)


def _check_data_ports(settings: Settings, origins: Mapping[str, str]) -> None:
    """Check that every worker has a port of its own."""
    endpoint = settings.data.endpoint
    if endpoint:
        _, port = parse_host_port(endpoint.removeprefix("tcp://"))
        last = MAX_PORT - settings.workers + 1
        if not 0 < port <= last:
            reason = f"{endpoint} must have a port from 1 to {last}: each of the {settings.workers} workers has one"
            raise mistake(origins["data.endpoint"], "data.endpoint", reason)


def _check_cluster(settings: Settings, origins: Mapping[str, str]) -> None:
    """Check that nothing is said of a fleet that the host is no part of, as it would be if `cluster` was forgotten.

    A file may be for a fleet that a flag or variable keeps the host out of, with an empty `cluster`.
    """
    if settings.cluster:
        return
    is_kept_out = _is_typed(origins["cluster"])
    for item in setting_fields():
        if not item.key.startswith("cluster_"):
            continue
        is_changed = value_of(settings, item) != item.default and not is_kept_out
        if _is_typed(origins[item.key]) or is_changed:
            raise mistake(origins[item.key], item.key, "only with cluster, the NATS servers of the fleet, nats://A,B,C")


def _is_typed(origin: str) -> bool:
    """Whether a value is from a flag or a variable."""
    return origin.startswith(("--", VARIABLE_PREFIX))


def _check_protocols(settings: ProtocolSettings, origins: Mapping[str, str]) -> None:
    """Check that a Hello can offer the capabilities, and offers the required ones, as else every peer would be refused."""
    try:
        offered = sorted({item.capability.name for item in Protocols(settings).offered})
    except ValueError as error:
        raise mistake(origins["protocols.extra"], "protocols.extra", str(error)) from error
    for name in settings.required:
        if name not in offered:
            reason = wrong(name, Expected(f"what is offered: {', '.join(offered)}", offered[-1]))
            raise mistake(origins["protocols.required"], "protocols.required", reason)


def mistake(origin: str, key: str, reason: str) -> ConfigError:
    """Return the error under the name that the user gave: the flag or variable, or the file and the key in it."""
    named = origin if _is_typed(origin) else f"{origin}: {key}"
    return ConfigError(f"{named}: {reason}")
