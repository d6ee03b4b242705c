"""Who may use the endpoints over TCP: users with a key that has the right, everybody, or nobody because there are none."""

from __future__ import annotations

import os

import structlog

from rlpx.engine.settings.settings import Settings
from rlpx.engine.settings.user_keys import Right, UserKeys, keys_folder
from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.control import KeyUser
from rlpx.protocol.bus.curve import CurveServer
from rlpx.protocol.bus.endpoint import Endpoint, Security
from rlpx.protocol.bus.records import DataKeys

log = structlog.get_logger()


class Access:
    """See the module."""

    def __init__(self, keys: UserKeys | None) -> None:
        self._keys = keys

    @classmethod
    def of(cls, settings: Settings) -> Access:
        """Read the keys, and make the access that the settings define. Raises `ConfigError`."""
        if not (settings.control.endpoint or settings.events.endpoint or settings.data.endpoint):
            return cls(None)
        if settings.curve.insecure:
            log.warning("curve.insecure: every user of this machine can use the TCP endpoints, and send commands")
            return cls(None)
        return cls(UserKeys(keys_folder(settings.curve.keys_dir, os.environ)))

    def security(self, right: Right) -> Security:
        """The security of each connection over TCP whose user needs this right."""
        keys = self._keys
        if keys is None:
            return zmtp.Null
        return lambda: CurveServer(keys.server, keys.authorise(right), os.urandom)

    @property
    def data_keys(self) -> DataKeys:
        """The key of the workers' endpoints."""
        return DataKeys(None if self._keys is None else self._keys.server.secret)

    @property
    def users(self) -> tuple[KeyUser, ...]:
        """All users; none if keys are not needed."""
        return () if self._keys is None else self._keys.users

    def end_revoked(self, endpoint: Endpoint, right: Right) -> None:
        """End the connections of users that no longer have this right."""
        if self._keys is not None:
            self._keys.end_revoked(endpoint, right)
