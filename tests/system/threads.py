"""Threads beside a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread


@contextmanager
def in_threads(*runs: Callable[[], None], is_over: Event) -> Iterator[None]:
    """Threads that end with the `with` body: `is_over` is set then."""
    threads = [Thread(target=run) for run in runs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
