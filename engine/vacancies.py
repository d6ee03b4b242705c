"""Offers places that have come free: to sessions that wait for one, to the listener, and to static peers that are due."""

from __future__ import annotations

from rlpx.engine.intake.accepts import Accepts
from rlpx.engine.intake.dials import Dials
from rlpx.engine.verdicts import Verdicts


class Vacancies:
    """See the module."""

    def __init__(self, verdicts: Verdicts, accepts: Accepts, dials: Dials) -> None:
        self._verdicts = verdicts
        self._accepts = accepts
        self._dials = dials

    def offer(self) -> None:
        """Places may have come free. Dials need no offer: the end of each dial looks for peers that are due."""
        self._verdicts.give_waiting()
        self._accepts.resume()

    def on_rules_changed(self) -> None:
        """Limits, lists or bans have changed: look again at everyone who waits or was refused."""
        self._accepts.update_listener()
        self.offer()
        self._dials.reconsider()
