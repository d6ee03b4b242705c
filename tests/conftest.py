"""What all tests share: where processes find the packages, and how `async def test_…` runs.

Such a test runs on uvloop, as engine and workers do, or on the loop that the marker `loop` names: the clock of
`loop("virtual")` advances only when the loop would wait. `loop(factory=…)` takes a test's own class. An exception
inside a callback of the loop fails the test.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import uvloop

from tests.generated import register_profiles
from tests.virtual_time import VirtualLoop

register_profiles()

_ROOT = Path(__file__).resolve().parents[1]
# For processes that tests start: the packages under their one name, then the clone for `tests` itself.
os.environ["PYTHONPATH"] = os.pathsep.join((str(_ROOT / ".venv" / "house"), str(_ROOT)))

_LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.new_event_loop,
    "virtual": VirtualLoop,
}


def _loop_factory(marker: pytest.Mark | None) -> Callable[[], asyncio.AbstractEventLoop]:
    if marker is None:
        return uvloop.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = marker.kwargs.get("factory") or _LOOPS[marker.args[0]]
    return factory


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take long, so that at the end no process waits for another's."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function; others are left to pytest."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    faults: list[dict[str, Any]] = []

    async def watched() -> None:
        test = asyncio.current_task()
        assert test is not None

        def on_fault(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            # uvloop runs signal handlers as callbacks: pytest's timeout comes here too, and must end the test.
            faults.append(context)
            test.cancel()

        asyncio.get_running_loop().set_exception_handler(on_fault)
        await pyfuncitem.obj(**arguments)

    with asyncio.Runner(loop_factory=_loop_factory(pyfuncitem.get_closest_marker("loop"))) as runner:
        try:
            runner.run(watched())
        except asyncio.CancelledError:
            if not faults:
                raise
    assert faults == []
    return True
