"""Whether the engine lives, and whether it takes sessions: for load balancers, containers and service managers."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from aiohttp import web

from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.watch.keys import LINK
from rlpx.protocol.bus.metrics import MetricsResult, WorkerMetrics
from rlpx.protocol.bus.results import StatusResult, WorkerStatus

# Workers report once a second. One that has been silent this long does not take sessions, whatever it does.
SILENT_MS: Final = 3000


# Why a host of a fleet lets nobody in.
_NOT_LET_IN: Final = {
    "away": "NATS does not answer, and cluster_when_away is closed",
    "doubtful": "other hosts of the fleet may have given this one up",
}


class Health(msgspec.Struct, frozen=True):
    """The answer to a health check. `reasons` says why it is not `ok`; it is empty otherwise."""

    ok: bool
    reasons: list[str]


routes = web.RouteTableDef()


@routes.get("/healthz")
async def healthz(request: web.Request) -> web.Response:
    """200 if the engine answers, else 503 with the reason."""
    try:
        await request.app[LINK].ask(lambda engine: engine.counts())
    except (EngineError, EngineUnavailableError) as error:
        return answer(request, [str(error)])
    return answer(request, [])


@routes.get("/readyz")
async def readyz(request: web.Request) -> web.Response:
    """200 if the engine takes sessions and every worker is up, else 503 with the reasons."""
    link = request.app[LINK]
    try:
        status, metrics = await asyncio.gather(
            link.ask(lambda engine: engine.status()), link.ask(lambda engine: engine.metrics())
        )
    except (EngineError, EngineUnavailableError) as error:
        return answer(request, [str(error)])
    return answer(request, unready(status, metrics))


def unready(status: StatusResult, metrics: MetricsResult) -> list[str]:
    """The reasons why the engine does not take sessions as it should."""
    figures = {worker.worker: worker for worker in metrics.workers}
    # A worker that leaves has an heir, and takes no more sessions; one that joins takes none yet.
    stay = [worker for worker in status.workers if not (worker.leaving or worker.joining)]
    reasons = [reason for worker in stay for reason in _unready_worker(worker, figures.get(worker.worker))]
    if not stay:
        reasons.append("there is no worker")
    if not status.has_descriptors:
        reasons.append("the engine is almost out of file descriptors")
    if status.fleet is not None and not status.fleet.lets_in:
        reasons.append(_NOT_LET_IN[status.fleet.state])
    return reasons


def _unready_worker(worker: WorkerStatus, figures: WorkerMetrics | None) -> list[str]:
    if not worker.ready:
        return [f"worker {worker.worker} is not up"]
    if figures is not None and figures.age_ms is not None and figures.age_ms > SILENT_MS:
        return [f"worker {worker.worker} has not reported for {figures.age_ms / 1000:.1f} s"]
    # Before its first report nothing is known of its descriptors.
    return [f"worker {worker.worker} is almost out of file descriptors"] if worker.has_descriptors is False else []


def answer(request: web.Request, reasons: list[str]) -> web.Response:
    """200 without reasons, 503 with them: JSON if the client asks for it, otherwise one reason a line."""
    status = 503 if reasons else 200
    if "application/json" in request.headers.get("Accept", ""):
        body = msgspec.json.encode(Health(not reasons, reasons))
        return web.Response(body=body, status=status, content_type="application/json")
    return web.Response(text="\n".join(reasons or ["ok"]) + "\n", status=status)
