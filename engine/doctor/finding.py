"""What the doctor finds: one fact, whether it is well, and what to do if it is not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """`fail`: the engine cannot run like this. `warn`: it runs, but not as well as it could, or not with all sessions."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


# No msgspec: the doctor also runs if libraries are missing.
@dataclass(frozen=True)
class Finding:
    """One finding. `check` is its stable name; `advice` is empty if nothing needs to be done."""

    check: str
    state: State
    found: str
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The finding for JSON."""
        return asdict(self)


def judge(check: str, found: str, *, is_well: bool, advice: str, otherwise: State = State.WARN) -> Finding:
    """A finding that is well, or else has a state and advice."""
    return Finding(check, State.OK, found) if is_well else Finding(check, otherwise, found, advice)
