"""The contracts hold for the seeds and for everything that fuzzing has found. `bin/fuzz` searches for more."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlpx import protocol
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


def test_the_coverage_that_guides_fuzzing_is_that_of_protocol() -> None:
    # Without atheris the module cannot be imported. Under another name nothing would be instrumented.
    text = (Path(__file__).parent / "one.py").read_text()
    assert f'instrument_imports(include=["{protocol.__name__}"])' in text
