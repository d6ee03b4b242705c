"""The metrics of the scrape itself, of all processes, and of workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rlpx.engine.watch.metric import Sample, by_name, cut, metric, of_engine, of_workers, worker_name
from rlpx.engine.watch.scrapes import Figures
from rlpx.protocol.bus.metrics import EngineMetrics, ProcessUse, WorkerMetrics

# -- the scrape itself ------------------------------------------------------------------------------------------------------


@metric("rlpx_up", "gauge", "", "Whether the engine answered this scrape: 1, or 0 if it did not within 1.5 s.")
def _up(figures: Figures) -> Iterable[Sample]:
    return [((), float(figures.result is not None))]


@metric("rlpx_scrape_duration_seconds", "gauge", "", "Time that the engine took to answer this scrape.")
def _scrape(figures: Figures) -> Iterable[Sample]:
    return [((), figures.seconds)]


@metric(
    "rlpx_build",
    "info",
    "version compiled chain run",
    "The engine: its version, whether its C code is in use, its chain, and its run.",
)
def _build(figures: Figures) -> Iterable[Sample]:
    if figures.result is None:
        return []
    engine = figures.result.engine
    compiled = "true" if engine.compiled else "false"
    return [((cut(engine.version), compiled, cut(engine.chain), cut(figures.result.run)), 1.0)]


# -- processes --------------------------------------------------------------------------------------------------------------


@metric("rlpx_process_cpu_seconds", "counter", "process", "CPU time of each process since its start.")
def _cpu(figures: Figures) -> Iterable[Sample]:
    return [((name,), use.cpu_seconds) for name, use in _processes(figures)]


@metric("rlpx_process_resident_memory_bytes", "gauge", "process", "Resident memory.")
def _memory(figures: Figures) -> Iterable[Sample]:
    return [((name,), float(use.memory_bytes)) for name, use in _processes(figures)]


@metric("rlpx_process_open_fds", "gauge", "process", "Open file descriptors.")
def _descriptors(figures: Figures) -> Iterable[Sample]:
    return [((name,), float(use.descriptors)) for name, use in _processes(figures)]


@metric("rlpx_process_max_fds", "gauge", "process", "The limit on open file descriptors.")
def _descriptor_limits(figures: Figures) -> Iterable[Sample]:
    return [((name,), float(use.descriptor_limit)) for name, use in _processes(figures)]


@metric("rlpx_process_start_time_seconds", "gauge", "process", "When the process started, in seconds since 1970.")
def _started(figures: Figures) -> Iterable[Sample]:
    return [((name,), use.started_us / 1e6) for name, use in _processes(figures) if use.started_us]


@metric("rlpx_worker_up", "gauge", "process", "Whether a worker takes sessions and commands.")
@of_workers
def _worker_up(worker: WorkerMetrics) -> Iterable[tuple[tuple[str, ...], float]]:
    return [((), float(worker.ready))]


@metric(
    "rlpx_worker_report_age_seconds",
    "gauge",
    "process",
    "Age of a worker's figures, which come once a second and with each scrape.",
)
@of_workers
def _age(worker: WorkerMetrics) -> Iterable[tuple[tuple[str, ...], float]]:
    return [] if worker.age_ms is None else [((), worker.age_ms / 1000)]


@metric(
    "rlpx_loop_lag_seconds",
    "histogram",
    "loop",
    "Lateness of the loops: how long a byte of a peer waits in a worker (workers), and how late timers are (engine).",
)
def _lag(figures: Figures) -> Iterable[Sample]:
    if figures.result is None:
        return []
    return [(("workers",), figures.total.loop_lag), (("engine",), figures.result.engine.loop_lag)]


@metric(
    "rlpx_worker_lag_max_seconds",
    "gauge",
    "process",
    "The longest time that a byte of a peer waited for its worker in the last second.",
)
@of_workers
def _lag_max(worker: WorkerMetrics) -> Iterable[tuple[tuple[str, ...], float]]:
    return [((), worker.loop_lag_ms / 1000)]


@metric(
    "rlpx_worker_deferred_connections",
    "gauge",
    "process",
    "Connections that have used their share of a worker's time and wait to be read.",
)
@of_workers
def _deferred(worker: WorkerMetrics) -> Iterable[tuple[tuple[str, ...], float]]:
    return [((), float(worker.deferred))]


@metric("rlpx_worker_goodbyes", "gauge", "process", "Ended sessions whose sockets stay until the peer has read the goodbye.")
@of_workers
def _goodbyes(worker: WorkerMetrics) -> Iterable[tuple[tuple[str, ...], float]]:
    return [((), float(worker.goodbyes))]


@metric("rlpx_worker_responders", "gauge", "process", "Programs that answer peers' requests.")
@of_workers
def _responders(worker: WorkerMetrics) -> Iterable[tuple[tuple[str, ...], float]]:
    return [((), float(worker.responders))]


@metric("rlpx_worker_feeds", "gauge", "process", "Open feeds.")
@of_workers
def _feeds(worker: WorkerMetrics) -> Iterable[tuple[tuple[str, ...], float]]:
    return [((), float(worker.feeds))]


@metric(
    "rlpx_worker_held_sessions",
    "gauge",
    "process",
    "Sessions that are not read because a lossless feed does not take their events.",
)
@of_workers
def _held(worker: WorkerMetrics) -> Iterable[tuple[tuple[str, ...], float]]:
    return [((), float(worker.held_sessions))]


@metric("rlpx_worker_starts", "counter", "", "Workers that became ready, those at the start included.")
@of_engine
def _worker_starts(engine: EngineMetrics) -> Iterable[Sample]:
    return [((), float(engine.worker_starts))]


@metric("rlpx_worker_ends", "counter", "how", "Workers that ended: lost, or told to.")
@of_engine
def _worker_ends(engine: EngineMetrics) -> Iterable[Sample]:
    return by_name({"lost": 0, "told": 0} | engine.worker_ends)


@metric("rlpx_log_lines_lost", "counter", "", "Log lines that could not be written.")
@of_engine
def _log_lines(engine: EngineMetrics) -> Iterable[Sample]:
    return [((), float(engine.log_lines_lost))]


# -- inside ---------------------------------------------------------------------------------------------------------------


def _processes(figures: Figures) -> Iterator[tuple[str, ProcessUse]]:
    yield "watch", figures.watch
    if figures.result is not None:
        yield "engine", figures.result.engine.process
        for worker in figures.result.workers:
            yield worker_name(worker), worker.process
