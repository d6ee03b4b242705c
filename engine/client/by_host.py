"""What the hosts of a fleet have answered to one question."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from rlpx.engine.client.presence import EngineError

T = TypeVar("T")


class ByHost(msgspec.Struct, Generic[T], frozen=True):
    """The answers of all hosts: results and errors by the host's name, and who did not answer in time."""

    results: dict[str, T]
    errors: dict[str, EngineError] = {}
    no_answer: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every host has a result."""
        return not self.errors and not self.no_answer
