"""The workers as a person looks at them: what `status` shows of each, and its lag of the last minute."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

LAGS_KEPT: Final = 60


class WorkerRow(msgspec.Struct, frozen=True):
    """One worker. Its own figures are `None` until its first report; `lags` are those of the last minute, by the second."""

    worker: int
    pid: int
    ready: bool
    pending: int
    active: int
    loop_lag_ms: float | None
    memory_bytes: int | None
    cpu: float | None
    progress_bytes: int | None
    progress_limit_bytes: int | None
    queued_event_bytes: int | None
    dropped_events: int | None
    deferred: int | None
    unanswered: int | None
    lags: list[float | None]


class Workers:
    """The workers of the last `status`."""

    def __init__(self) -> None:
        self._status: list[Mapping[str, Any]] = []
        self._limit_bytes: int | None = None
        self._lags: dict[int, deque[float | None]] = {}
        # The share of a core that each process uses, by its pid.
        self._cpu: dict[int, float] = {}

    def take_status(self, workers: Iterable[Mapping[str, Any]], limit_bytes: int | None) -> None:
        """Take over the workers of a `status`; `limit_bytes` is each one's budget for what is in progress."""
        self._status, self._limit_bytes = list(workers), limit_bytes
        here = {item["worker"] for item in self._status}
        for worker in self._lags.keys() - here:
            del self._lags[worker]
        for item in self._status:
            self._lags.setdefault(item["worker"], deque(maxlen=LAGS_KEPT)).append(item.get("loop_lag_ms"))

    def take_cpu(self, shares: Mapping[int, float]) -> None:
        """Take over the share of a core that each process uses."""
        self._cpu = dict(shares)

    def data_endpoint(self, worker: int) -> str | None:
        """Where programs on other machines reach a worker; `None` if they do not."""
        for item in self._status:
            if item["worker"] == worker:
                tcp: str | None = (item.get("data_endpoints") or {}).get("tcp")
                return tcp
        return None

    def rows(self) -> list[WorkerRow]:
        """All workers, by index."""
        return [self._row(item) for item in sorted(self._status, key=lambda item: int(item["worker"]))]

    def _row(self, item: Mapping[str, Any]) -> WorkerRow:
        return WorkerRow(
            worker=item["worker"],
            pid=item["pid"],
            ready=item["ready"],
            pending=item["pending"],
            active=item["active"],
            loop_lag_ms=item.get("loop_lag_ms"),
            memory_bytes=item.get("memory_bytes"),
            cpu=self._cpu.get(item["pid"]),
            progress_bytes=item.get("progress_bytes"),
            progress_limit_bytes=self._limit_bytes,
            queued_event_bytes=item.get("queued_event_bytes"),
            dropped_events=item.get("dropped_events"),
            deferred=item.get("deferred"),
            unanswered=item.get("unanswered"),
            lags=list(self._lags.get(item["worker"], ())),
        )
