"""Settings of workers and sessions travel as they are declared, within their bounds."""

from __future__ import annotations

import msgspec
import pytest

from rlpx.protocol.settings import ConductSettings, QueueSettings, Section, TimeoutSettings, WorkerSettings


def test_the_sections_read_back_as_they_were() -> None:
    settings = WorkerSettings(
        timeouts=TimeoutSettings(ping_s=7.5), conduct=ConductSettings(ends_on_breach=False), queues=QueueSettings(goodbyes=3)
    )
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(settings), type=WorkerSettings) == settings


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (TimeoutSettings, {"ping_s": 0}),
        (TimeoutSettings, {"ping_seconds": 1}),
        (QueueSettings, {"worker_progress_bytes": 1024}),
        (ConductSettings, {"max_bad_messages": 0}),
    ],
)
def test_a_value_out_of_bounds_and_an_unknown_name_are_refused(section: type[Section], values: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(values, section)


def test_no_section_changes_while_running_unless_it_says_so() -> None:
    assert not Section.is_live
