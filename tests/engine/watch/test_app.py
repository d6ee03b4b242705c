"""What applies to every route."""

from __future__ import annotations

from tests.engine.watch.fake_link import FakeLink, served


async def test_another_host_name_is_refused_everywhere() -> None:
    async with served(FakeLink(lambda _: None)) as client:
        for path in ("/healthz", "/", "/no-such"):
            answer = await client.get(path, headers={"Host": "evil.example"})
            assert answer.status == 403


async def test_another_sites_page_is_refused_and_no_answer_is_shared_with_it() -> None:
    async with served(FakeLink(lambda _: None)) as client:
        answer = await client.get("/healthz", headers={"Origin": "http://evil.example"})
        assert answer.status == 403
        assert "Access-Control-Allow-Origin" not in answer.headers
        answer = await client.get("/healthz")
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_the_connection_to_the_engine_ends_with_the_application() -> None:
    link = FakeLink(lambda _: None)
    async with served(link):
        assert not link.is_closed
    assert link.is_closed
