from __future__ import annotations

import pytest

from rlpx.engine.client import nats_servers
from rlpx.engine.client.nats_servers import NatsUnavailableError, Servers, connect


@pytest.mark.loop("asyncio")
async def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_servers, "START_SECONDS", 0.5)
    with pytest.raises(NatsUnavailableError, match=r"no NATS server of nats://127\.0\.0\.1:1 can be used"):
        await connect(Servers(("nats://user:secret@127.0.0.1:1",)), "a", on_lost=lambda: None, on_back=lambda: None)
