"""Whether an engine and a worker of other code agree: any change to the form of a message shows, and no other change."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated, Any

import msgspec
import pytest

from rlpx.protocol.bus.agreement import digest, fingerprint
from tests.system.harness import IMPORT_PATH


def message(*fields: Any, name: str = "Message", doc: str = "", **options: Any) -> type[msgspec.Struct]:
    """A message of this form; its class has the same name as others, as if one was edited."""
    made = msgspec.defstruct(name, fields, **{"tag": "message", "array_like": True, **options})
    made.__doc__ = doc
    return made


FIELDS = (("session", int), ("cause", str, ""))
FORM = message(*FIELDS)


@pytest.mark.parametrize(
    "changed",
    [
        message(("cause", str), ("session", int)),
        message(*FIELDS, ("more", int, 0)),
        message(("session", int)),
        message(("session", str), ("cause", str, "")),
        message(("session", msgspec.defstruct("Inner", [("number", int)])), ("cause", str, "")),
        message(*FIELDS, tag="other"),
        message(*FIELDS, array_like=False),
    ],
)
def test_another_form_shows(changed: Any) -> None:
    assert digest(changed) != digest(FORM)
    # Also within another message.
    outer = [digest(message(("inner", inner), name="Outer")) for inner in (changed, FORM)]
    assert outer[0] != outer[1]


def test_another_description_or_default_does_not_show() -> None:
    assert digest(message(*FIELDS, doc="Told otherwise.")) == digest(FORM)
    assert digest(message(("session", int), ("cause", str, "none"))) == digest(FORM)
    described = Annotated[int, msgspec.Meta(description="its number")]
    assert digest(message(("session", described), ("cause", str, ""))) == digest(FORM)


def test_every_process_finds_the_same() -> None:
    code = "from rlpx.protocol.bus.agreement import fingerprint; print(fingerprint())"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONPATH": IMPORT_PATH, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.strip() == fingerprint()
