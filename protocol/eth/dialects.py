"""The dialects by the name of their capability. Importing this module loads all messages."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from rlpx.protocol.eth.dialect import Dialect
from rlpx.protocol.eth.messages import ETH
from rlpx.protocol.eth.snap_messages import SNAP

DIALECTS: Final[Mapping[str, Dialect[Any]]] = MappingProxyType({dialect.name: dialect for dialect in (ETH, SNAP)})
