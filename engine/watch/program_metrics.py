"""The metrics of events and their readers, of queues and budgets, and of the endpoints for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from rlpx.engine.watch.metric import Sample, by_name, cut, metric, of_engine, single, worker_name
from rlpx.engine.watch.scrapes import Figures
from rlpx.protocol.bus.metrics import EngineMetrics, MetricsResult, QueueUse

# -- events -----------------------------------------------------------------------------------------------------------------


@metric("rlpx_readers", "gauge", "reader", "Connected readers of events, by the name of their key, or local.")
@of_engine
def _readers(engine: EngineMetrics) -> Iterable[Sample]:
    return [((cut(item.user),), float(item.connected)) for item in engine.readers]


@metric("rlpx_reader_events_sent", "counter", "reader", "Events sent to the readers of a user.")
@of_engine
def _events_sent(engine: EngineMetrics) -> Iterable[Sample]:
    return [((cut(item.user),), float(item.sent_events)) for item in engine.readers]


@metric("rlpx_reader_events_missed", "counter", "reader", "Events that the readers of a user have missed.")
@of_engine
def _events_missed(engine: EngineMetrics) -> Iterable[Sample]:
    return [((cut(item.user),), float(item.missed_events)) for item in engine.readers]


@metric("rlpx_reader_queue_bytes", "gauge", "reader", "Bytes of events that wait for the readers of a user.")
@of_engine
def _reader_queue(engine: EngineMetrics) -> Iterable[Sample]:
    return [((cut(item.user),), float(item.queued_bytes)) for item in engine.readers]


@metric("rlpx_feed_events_sent", "counter", "", "Events sent to feeds.")
def _feed_events(figures: Figures) -> Iterable[Sample]:
    return single(figures, figures.total.feed_events_sent)


@metric("rlpx_feed_events_missed", "counter", "", "Events that feeds have missed.")
def _feed_missed(figures: Figures) -> Iterable[Sample]:
    return single(figures, figures.total.feed_events_missed)


@metric(
    "rlpx_worker_events_dropped", "counter", "", "Events that workers dropped because the engine did not take them in time."
)
def _dropped(figures: Figures) -> Iterable[Sample]:
    return single(figures, figures.total.dropped_events)


# -- queues and budgets -----------------------------------------------------------------------------------------------------


@metric("rlpx_queue_bytes", "gauge", "process queue", "Bytes that wait or are in progress in a bounded queue.")
def _queue_bytes(figures: Figures) -> Iterable[Sample]:
    return _queues(figures, lambda queue: queue.used_bytes)


@metric("rlpx_queue_limit_bytes", "gauge", "process queue", "The bound of each queue.")
def _queue_limits(figures: Figures) -> Iterable[Sample]:
    return _queues(figures, lambda queue: queue.limit_bytes)


@metric("rlpx_endpoint_connections", "gauge", "endpoint", "Programs connected to an endpoint of the engine.")
@of_engine
def _endpoints(engine: EngineMetrics) -> Iterable[Sample]:
    return [((item.endpoint,), float(item.connections)) for item in engine.endpoints]


@metric("rlpx_endpoint_refused", "counter", "endpoint", "Connections of programs that were refused.")
@of_engine
def _endpoints_refused(engine: EngineMetrics) -> Iterable[Sample]:
    return [((item.endpoint,), float(item.refused)) for item in engine.endpoints]


@metric("rlpx_commands", "counter", "command", "Commands of programs that were carried out.")
@of_engine
def _commands(engine: EngineMetrics) -> Iterable[Sample]:
    return by_name(engine.commands)


# -- inside ---------------------------------------------------------------------------------------------------------------


def _queues(figures: Figures, read: Callable[[QueueUse], int]) -> Iterator[Sample]:
    result: MetricsResult | None = figures.result
    if result is None:
        return
    fleet = result.engine.fleet
    for queue in [*result.engine.queues, *([] if fleet is None else fleet.queues)]:
        yield ("engine", queue.queue), float(read(queue))
    for worker in result.workers:
        for queue in worker.queues:
            yield (worker_name(worker), queue.queue), float(read(queue))
