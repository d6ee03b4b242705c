"""An engine of a few lines: a function answers whatever a client calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import zmq

from rlpx.engine.settings.run_dir import RunDir

# The replies, each of one frame or several.
Answer = Callable[[dict[str, Any], list[bytes]], list[bytes] | list[tuple[bytes, ...]]]


@contextmanager
def answering(folder: Path, answer: Answer, endpoint: str = "") -> Iterator[str]:
    """An engine in a thread that answers each request with the given replies; yields its endpoint."""
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
                router.send_multipart([identity, *(reply if isinstance(reply, tuple) else (reply,))])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield place
    finally:
        context.term()
        thread.join()


def result(request: dict[str, Any], value: object) -> bytes:
    """A successful reply."""
    return orjson.dumps({"jsonrpc": "2.0", "id": request["id"], "result": value})
