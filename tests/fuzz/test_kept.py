"""What fuzzing has found, and where it begins, holds without a fuzzer as well. `bin/fuzz` is where more is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import kept
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS


def test_every_target_has_seeds_and_kept_inputs() -> None:
    assert set(seeds()) == set(TARGETS) == {folder.name for folder in kept.CORPUS.iterdir()}


@pytest.mark.parametrize("name", TARGETS)
def test_the_contract_holds_for_what_is_kept(name: str) -> None:
    inputs = kept.read(kept.CORPUS / name)
    assert inputs
    for data in (b"", *inputs, *seeds()[name]):
        TARGETS[name](data)


def test_the_smallest_inputs_that_take_every_step_are_kept() -> None:
    smallest = kept.minimised(TARGETS["rlp"], [b"\x05", b"\x06", b"\x83dog", b"\xb8\x38" + bytes(56), bytes(2000)])
    assert smallest == [b"\x05", b"\x83dog", b"\xb8\x38" + bytes(56)]


def test_a_folder_holds_what_was_written_last(tmp_path: Path) -> None:
    kept.write(tmp_path, [b"one", b"two"])
    kept.write(tmp_path, [b"three"])
    assert kept.read(tmp_path) == [b"three"]
