from __future__ import annotations

from rlpx.engine.overview.workers import LAGS_KEPT, Workers
from tests.engine.overview.objects import status


def test_a_row_has_the_figures_of_status_and_the_lag_of_a_minute() -> None:
    workers = Workers()
    for second in range(100):
        rows = status(2)["workers"]
        rows[0]["loop_lag_ms"] = float(second)
        workers.take_status(rows, 1 << 28)
    workers.take_cpu({100: 0.25})
    first, second_row = workers.rows()
    assert (first.worker, first.pid, first.loop_lag_ms, first.progress_limit_bytes, first.cpu) == (
        0,
        100,
        99.0,
        1 << 28,
        0.25,
    )
    assert first.lags == [float(number) for number in range(100 - LAGS_KEPT, 100)]
    assert second_row.worker == 1


def test_a_worker_that_is_gone_leaves_nothing() -> None:
    workers = Workers()
    workers.take_status(status(2)["workers"], None)
    workers.take_status(status(1)["workers"], None)
    workers.take_status(status(2)["workers"], None)
    assert [len(row.lags) for row in workers.rows()] == [3, 1]


def test_a_worker_that_has_not_reported_has_no_figures() -> None:
    workers = Workers()
    bare = {"worker": 0, "pid": 1, "ready": False, "pending": 0, "active": 0, "loop_lag_ms": None, "memory_bytes": None}
    workers.take_status([bare], None)
    [row] = workers.rows()
    assert (row.loop_lag_ms, row.memory_bytes, row.progress_bytes, row.cpu) == (None, None, None, None)


def test_the_data_endpoint_of_a_worker_is_the_one_over_tcp() -> None:
    workers = Workers()
    rows = status(2)["workers"]
    rows[1]["data_endpoints"] = {"ipc": "ipc:///run/worker-1.ipc", "tcp": "tcp://10.0.0.5:5601"}
    workers.take_status(rows, None)
    assert [workers.data_endpoint(worker) for worker in (0, 1, 2)] == [None, "tcp://10.0.0.5:5601", None]
