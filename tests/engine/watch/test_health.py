"""Health checks: 200, or 503 with the reasons."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.watch.health import unready
from rlpx.protocol.bus.metrics import ClaimsCount
from rlpx.protocol.bus.results import FleetStatus
from tests.engine.hub.test_arguments import STATUS
from tests.engine.watch.fake_link import FakeLink, served
from tests.metrics_sample import METRICS, WORKER

replace = msgspec.structs.replace
READY = {"counts": None, "status": STATUS, "metrics": METRICS}


def failing(error: Exception) -> FakeLink:
    def answer(_: str) -> Any:
        raise error

    return FakeLink(answer)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_an_engine_that_answers_is_alive_and_ready(path: str) -> None:
    async with served(FakeLink(READY.get)) as client:
        answer = await client.get(path)
        assert (answer.status, await answer.text()) == (200, "ok\n")
        answer = await client.get(path, headers={"Accept": "application/json"})
        assert (answer.content_type, await answer.json()) == ("application/json", {"ok": True, "reasons": []})


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_an_engine_that_does_not_answer_is_neither_and_the_reason_is_said(path: str) -> None:
    async with served(failing(EngineUnavailableError("no answer within 1.5 s"))) as client:
        answer = await client.get(path)
        assert (answer.status, await answer.text()) == (503, "no answer within 1.5 s\n")
        answer = await client.get(path, headers={"Accept": "application/json"})
        assert (answer.status, await answer.json()) == (503, {"ok": False, "reasons": ["no answer within 1.5 s"]})


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_an_error_of_the_engine_is_a_reason_too(path: str) -> None:
    async with served(failing(EngineError("internal", "a fault of ours", -32603))) as client:
        answer = await client.get(path)
        assert (answer.status, await answer.text()) == (503, "a fault of ours\n")


def test_every_worker_must_be_up_and_heard_and_have_descriptors() -> None:
    [worker] = STATUS.workers
    workers = [
        replace(worker, worker=0, ready=False),
        replace(worker, worker=1, has_descriptors=False),
        replace(worker, worker=2, has_descriptors=None),
        replace(worker, worker=3),
    ]
    figures = [replace(WORKER, worker=index, age_ms=5) for index in range(3)] + [replace(WORKER, worker=3, age_ms=4200)]
    reasons = unready(replace(STATUS, workers=workers, has_descriptors=False), replace(METRICS, workers=figures))
    assert reasons == [
        "worker 0 is not up",
        "worker 1 is almost out of file descriptors",
        "worker 3 has not reported for 4.2 s",
        "the engine is almost out of file descriptors",
    ]


def test_an_engine_without_workers_takes_no_sessions() -> None:
    assert unready(replace(STATUS, workers=[]), replace(METRICS, workers=[])) == ["there is no worker"]


def test_a_worker_that_leaves_need_not_be_up() -> None:
    [worker] = STATUS.workers
    workers = [
        worker,
        replace(worker, worker=1, ready=False, leaving=True),
        replace(worker, worker=2, ready=False, joining=True),
    ]
    assert unready(replace(STATUS, workers=workers), METRICS) == []


@pytest.mark.parametrize(
    ("state", "lets_in", "reasons"),
    [
        ("member", True, []),
        ("away", True, []),
        ("away", False, ["NATS does not answer, and cluster_when_away is closed"]),
        ("doubtful", False, ["other hosts of the fleet may have given this one up"]),
    ],
)
def test_a_host_of_a_fleet_is_ready_if_it_lets_peers_in(
    state: Literal["member", "doubtful", "away"],
    lets_in: bool,  # noqa: FBT001 - a case of the test
    reasons: list[str],
) -> None:
    fleet = FleetStatus("monitors", "a", state, lets_in, None, ["a"], {}, ClaimsCount(0, 0, 0), 0, 0, 0)
    assert unready(replace(STATUS, fleet=fleet), METRICS) == reasons
