"""An engine of a few lines: whatever a client calls is answered by a function."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import zmq

from engine.config import RunDir

Answer = Callable[[dict[str, Any], list[bytes]], list[bytes]]


@contextmanager
def answering(folder: Path, answer: Answer, endpoint: str = "") -> Iterator[str]:
    """An engine in a thread that answers each request with the given replies; where it is."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.LINGER, 0)
    router.bind(endpoint or RunDir(folder).endpoint("control"))
    place = router.getsockopt_string(zmq.LAST_ENDPOINT)

    def serve() -> None:
        while True:
            try:
                identity, body, *attachments = router.recv_multipart()
            except zmq.ContextTerminated:
                router.close()
                return
            for reply in answer(orjson.loads(body), attachments):
                router.send_multipart([identity, reply])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield place
    finally:
        context.term()
        thread.join()


def result(request: dict[str, Any], value: object) -> bytes:
    """A reply that went well."""
    return orjson.dumps({"jsonrpc": "2.0", "id": request["id"], "result": value})
