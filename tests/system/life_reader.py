"""A reader beside a test: it checks that the events of each session fit together, whatever happens to the engine."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from rlpx.engine.client.presence import EngineUnavailableError
from rlpx.engine.client.subscriber import Subscriber
from tests.reader_model import ReaderModel

# Once its engine is gone, the events on their way come at once.
POLL_SECONDS: Final = 0.2
SUBSCRIBE_SECONDS: Final = 120.0


class LifeReader:
    """Reads the events of sessions in a thread of its own until `close`, which raises an error if any did not fit.

    Unless `is_complete`, sessions may have begun before: then only a duplicate, or an event after the end, is a fault.
    """

    def __init__(self, run_dir: Path, *, is_complete: bool) -> None:
        self.model = ReaderModel()
        self.model.lost = 0 if is_complete else 1
        self._run_dir = run_dir
        self._fault: BaseException | None = None
        self._has_begun = threading.Event()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._has_begun.wait(2 * SUBSCRIBE_SECONDS)

    def close(self, *, is_clean: bool) -> None:
        """Read what is left, and raise the `AssertionError` of an event that did not fit unless the test failed already."""
        self._is_over.set()
        self._thread.join(SUBSCRIBE_SECONDS)
        assert not self._thread.is_alive(), "the reader of lives did not end"
        if self._fault is not None and is_clean:
            raise self._fault

    def _run(self) -> None:
        try:
            self._read()
        except EngineUnavailableError:
            # The test ended its engine.
            pass
        except BaseException as fault:  # noqa: BLE001 - raised by `close`, in the thread of the test
            self._fault = fault
        finally:
            self._has_begun.set()

    def _read(self) -> None:
        with Subscriber.of(self._run_dir, ["session."]) as subscriber:
            self.model.take(subscriber.confirm(SUBSCRIBE_SECONDS))
            self._has_begun.set()
            while True:
                items = subscriber.poll(POLL_SECONDS)
                self.model.take(items)
                if not items and self._is_over.is_set():
                    return
