"""The page of `rlpx-watch` in a real browser, over a real engine with real sessions."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.pair import DEV
from tests.system.cluster_fleet import Nats, member
from tests.system.harness import IMPORT_PATH, PATIENCE_SECONDS, RunningEngine, eventually
from tests.system.peers import Peer
from tests.system.watching import DESK, Looking, RunningWatch, opened_browser

HOSTILE: Final = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>&lt;b&gt;'
PHONE: Final = (390, 844)
WIDE: Final = (2200, 1200)
# How long the browser is watched for stalls, and how long one may be: the machine may be busy with other tests.
LOOK_MS: Final = 5000
STALL_MS: Final = 1000

expect.set_options(timeout=PATIENCE_SECONDS * 1000)


class HostilePeer(Peer):
    client = HOSTILE


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened_browser() as opened:
        yield opened


@pytest.fixture
def engine(browser: Browser) -> Iterator[RunningEngine]:
    assert browser.is_connected()
    with RunningEngine(workers=2) as running:
        yield running


@pytest.fixture
def watch(engine: RunningEngine) -> Iterator[RunningWatch]:
    with RunningWatch(engine.run_dir) as running:
        yield running


def peer(engine: RunningEngine, kind: type[Peer] = Peer) -> Peer:
    return kind(engine.address, engine.node_id, DEV).establish()


def tile(page: Page, name: str) -> Locator:
    return page.locator(".tile", has_text=name).locator("strong")


def test_it_loads_and_follows_sessions_as_they_come_and_go(
    browser: Browser, engine: RunningEngine, watch: RunningWatch
) -> None:
    with peer(engine) as first, Looking(browser, watch.address) as looking:
        page = looking.page
        expect(page.locator("#state-text")).to_have_text("Live")
        expect(tile(page, "Inbound sessions")).to_have_text("1")
        expect(page).to_have_title(re.compile("^1 sessions"))
        with peer(engine):
            expect(tile(page, "Inbound sessions")).to_have_text("2")
            expect(page.locator(".bars").first).to_contain_text("test-peer")
        first.leave()
        expect(tile(page, "Inbound sessions")).to_have_text("0")
        ends = page.locator(".card", has_text="Last ends").locator("tbody tr")
        expect(ends).to_have_count(2)
        expect(ends.filter(has_text="client quitting")).to_have_count(1)
        # Every chart says in words what it shows.
        label = page.locator("svg.chart").first.get_attribute("aria-label") or ""
        assert re.match(r"Sessions over time: inbound \d+, outbound 0", label), label


def test_a_host_of_a_fleet_shows_its_membership_and_an_engine_alone_nothing(browser: Browser, watch: RunningWatch) -> None:
    with Looking(browser, watch.address) as looking:
        expect(looking.page.locator("#state-text")).to_have_text("Live")
        expect(looking.page.locator(".card", has_text="Fleet of hosts")).to_be_hidden()
    with (
        Nats() as nats,
        member(nats, "a") as engine,
        RunningWatch(engine.run_dir) as fleet_watch,
        Looking(browser, fleet_watch.address) as looking,
    ):
        card = looking.page.locator(".card", has_text="Fleet of hosts")
        expect(card).to_contain_text("Host a of test: 1 hosts are there: a")
        expect(card).to_contain_text("0 of 0 leased places used")
        nats.kill(0)
        expect(card.locator(".bad")).to_contain_text("NATS has not answered for")


def test_a_hostile_name_is_a_text_everywhere(browser: Browser, engine: RunningEngine, watch: RunningWatch) -> None:
    with peer(engine, HostilePeer), Looking(browser, watch.address) as looking:
        page = looking.page
        expect(page.locator(".bars").first).to_contain_text("<img src=x onerror=")
        page.goto(f"{watch.address}#/sessions")
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator("tbody")).to_contain_text("<img src=x")
        page.locator("tbody a").click()
        expect(page.locator(".subtitle")).to_contain_text(HOSTILE[:60])
        engine.call("disconnect-all")
        expect(page.locator(".pill")).to_have_text("ended")
        page.goto(f"{watch.address}#/ends")
        expect(page.locator("tbody")).to_contain_text("<img src=x")
        assert page.locator("img").count() == 0
        assert page.evaluate("document.title") != "owned"


def test_the_policy_stops_what_a_script_would_do_with_a_text(browser: Browser, watch: RunningWatch) -> None:
    with Looking(browser, watch.address) as looking:
        made = looking.page.evaluate(
            """() => {
                try { document.body.innerHTML = "<b>x</b>"; return "made"; } catch (error) { return error.name; }
            }"""
        )
        assert made == "TypeError"
        looking.complaints.clear()


def test_it_survives_an_engine_that_restarts(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    run_dir.chmod(0o700)
    with RunningEngine(run_dir=run_dir, is_read=False) as engine, RunningWatch(run_dir) as watch:
        looking = Looking(browser, watch.address)
        page = looking.page
        with peer(engine):
            expect(tile(page, "Inbound sessions")).to_have_text("1")
            engine.process.send_signal(signal.SIGKILL)
            engine.process.wait()
        expect(page.locator("#banner")).to_contain_text("The engine does not answer")
        expect(page.locator("#state")).to_have_attribute("data-state", "lost")
        with RunningEngine(run_dir=run_dir, is_read=False) as second:
            expect(page.locator("#banner")).to_be_hidden()
            expect(tile(page, "Inbound sessions")).to_have_text("0")
            with peer(second):
                expect(tile(page, "Inbound sessions")).to_have_text("1")
        expect(page.locator("#state")).to_have_attribute("data-state", "lost")
        with looking:
            pass


def test_an_engine_that_hangs_is_shown_as_stale(browser: Browser, engine: RunningEngine, watch: RunningWatch) -> None:
    with Looking(browser, watch.address) as looking:
        page = looking.page
        expect(page.locator("#state-text")).to_have_text("Live")
        engine.process.send_signal(signal.SIGSTOP)
        try:
            expect(page.locator("#state-text")).to_have_text("Stale")
            expect(page.locator("#banner-text")).to_contain_text("no answer from ipc://")
            expect(page.locator("#banner-age")).to_contain_text(" s")
        finally:
            engine.process.send_signal(signal.SIGCONT)
        expect(page.locator("#state-text")).to_have_text("Live")


def test_it_says_when_its_own_server_is_gone_and_comes_back(browser: Browser, engine: RunningEngine) -> None:
    with RunningWatch(engine.run_dir) as watch:
        looking = Looking(browser, watch.address)
        expect(looking.page.locator("#state-text")).to_have_text("Live")
    expect(looking.page.locator("#banner")).to_contain_text("rlpx-watch has not been heard")
    with RunningWatch(engine.run_dir, "--listen", watch.address.split("/")[2]), looking:
        expect(looking.page.locator("#state-text")).to_have_text("Live")
        expect(looking.page.locator("#banner")).to_be_hidden()


def test_a_page_of_a_session_shows_its_messages_and_requests_as_they_pass(
    browser: Browser, engine: RunningEngine, watch: RunningWatch
) -> None:
    with peer(engine) as sender:
        session = engine.call("sessions")["sessions"][0]["session"]
        with Looking(browser, f"{watch.address}#/session/{session}") as looking:
            page = looking.page
            expect(page.locator(".pill")).to_have_text("active")
            expect(page.locator(".facts").first).to_contain_text(sender.node_id.hex())
            eventually(lambda: _feeds(engine) == 1, "a feed of the session is open")
            # GetBlockHeaders: request 7, from block 1, 192 headers.
            sender.send(3, bytes.fromhex("c707c50181c08080"))
            tap = page.locator(".tap li")
            expect(tap.filter(has_text="eth.GetBlockHeaders")).to_have_count(1)
            expect(tap.filter(has_text="eth.BlockHeaders")).to_have_count(1)
            requests = page.locator(".card", has_text="Requests").locator("tbody tr")
            expect(requests).to_have_count(1)
            expect(requests).to_contain_text("answered")
            tap.filter(has_text="eth.GetBlockHeaders").locator("summary").click()
            expect(tap.filter(has_text="eth.GetBlockHeaders").locator("pre")).to_contain_text('"limit": 192')
            page.locator("input[placeholder='Filter by name']").fill("getblock")
            expect(tap).to_have_count(1)
            page.goto(f"{watch.address}#/")
            eventually(lambda: _feeds(engine) == 0, "the feed is closed when nobody looks")
            page.goto(f"{watch.address}#/session/{session}")
            sender.leave()
            expect(page.locator(".ended")).to_contain_text("by the peer (client quitting)")
            page.goto(f"{watch.address}#/session/999999")
            expect(page.locator(".ended")).to_contain_text("999999")


def _feeds(engine: RunningEngine) -> int:
    return sum(worker["feeds"]["open"] for worker in engine.call("status")["workers"] if worker["feeds"])


def test_everything_can_be_done_by_keyboard(browser: Browser, engine: RunningEngine, watch: RunningWatch) -> None:
    with peer(engine), peer(engine), Looking(browser, watch.address) as looking:
        page = looking.page
        expect(tile(page, "Inbound sessions")).to_have_text("2")
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#main")).to_be_focused()
        assert page.url.endswith("/")
        # From the main part on, the keyboard reaches the charts, which the arrow keys read.
        page.locator("svg.chart").first.focus()
        # There is something to read from the end of the server's first second on.
        eventually(lambda: _read_back(page), "the chart shows an earlier moment")
        page.keyboard.press("/")
        expect(page.locator("#search")).to_be_focused()
        page.keyboard.type("test-peer")
        page.keyboard.press("Enter")
        expect(page.locator("tbody tr")).to_have_count(2)
        expect(page.locator("nav a[aria-current]")).to_have_text("Sessions")
        first = page.locator("tbody tr").first.locator("a")
        newest = first.inner_text()
        page.locator("th button").first.focus()
        page.keyboard.press("Enter")
        expect(page.locator("th").first).to_have_attribute("aria-sort", "ascending")
        expect(first).not_to_have_text(newest)
        first.focus()
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_contain_text("Session ")
        page.keyboard.press("/")
        page.keyboard.type(newest)
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text(f"Session {newest}")
        # Every element that takes the keyboard has a name, and every field a label.
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("a, button, input, select")].filter((element) =>
                !element.textContent.trim() && !element.getAttribute("aria-label")).map((element) => element.outerHTML)"""
        )
        assert nameless == []


def _read_back(page: Page) -> str:
    page.keyboard.press("ArrowLeft")
    return page.locator(".when").first.inner_text()


def test_it_fits_every_screen_in_light_and_dark(browser: Browser, engine: RunningEngine, watch: RunningWatch) -> None:
    with peer(engine, HostilePeer):
        session = engine.call("sessions")["sessions"][0]["session"]
        for size, scheme in itertools.product((PHONE, DESK, WIDE), ("light", "dark")):
            with Looking(browser, watch.address, size=size, scheme=scheme) as looking:
                page = looking.page
                for place in ("#/", "#/sessions", "#/ends", f"#/session/{session}"):
                    page.goto(f"{watch.address}{place}")
                    expect(page.locator("h1")).to_be_visible()
                    expect(page.locator("#state-text")).to_have_text("Live")
                    # Nothing makes the page itself wider than the screen.
                    assert page.evaluate("document.documentElement.scrollWidth") <= size[0], (place, size)
                # WCAG 2.1, 1.4.3.
                assert _contrast(page) >= 4.5, scheme


def _contrast(page: Page) -> float:
    """The least contrast of the page's texts with their card."""
    found = page.evaluate(
        """() => {
            const light = (text) => {
                const [r, g, b] = text.match(/[0-9.]+/g).map(Number).map((value) => value / 255)
                    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const ground = light(getComputedStyle(document.querySelector(".card")).backgroundColor);
            const texts = [...document.querySelectorAll(".card h2, .card dt, .card dd, .card .note, .card a, .card .empty")];
            return Math.min(...texts.map((element) => light(getComputedStyle(element).color))
                .map((ink) => (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05)));
        }"""
    )
    return float(found)


def test_without_a_token_a_page_can_change_nothing(browser: Browser, engine: RunningEngine, watch: RunningWatch) -> None:
    with peer(engine):
        session = engine.call("sessions")["sessions"][0]["session"]
        with Looking(browser, f"{watch.address}#/session/{session}") as looking:
            page = looking.page
            expect(page.locator(".pill")).to_have_text("active")
            expect(page.get_by_role("button", name="Disconnect")).to_be_hidden()
            expect(page.locator("#foot")).to_contain_text("read-only")
            status = page.evaluate(
                """async (session) => (await fetch("/api/control/disconnect",
                    {method: "POST", body: JSON.stringify({session})})).status""",
                session,
            )
            assert status == 403
        assert engine.counts()[2] == 1


def test_with_the_token_it_disconnects_bans_and_sets_limits(browser: Browser, engine: RunningEngine) -> None:
    with RunningWatch(engine.run_dir, "--control") as watch, Looking(browser, watch.control) as looking:
        page = looking.page
        # The token leaves the address at once, and stays in this tab.
        expect(page.locator("#foot")).to_contain_text("control")
        assert "token" not in page.url
        assert (engine.run_dir / "watch.token").stat().st_mode & 0o777 == 0o600
        page.get_by_role("button", name="Change limits").click()
        page.locator("input[name=max_active_inbound]").fill("7")
        page.get_by_role("button", name="Change", exact=True).click()
        expect(page.locator(".tile", has_text="Inbound sessions")).to_contain_text("of 7")
        assert engine.call("counts")["limits"]["max_active_inbound"] == 7
        with peer(engine) as first:
            page.goto(f"{watch.address}#/sessions")
            page.locator("tbody a").click()
            page.get_by_role("button", name="Disconnect").click()
            page.locator("dialog select").select_option("too_many_peers")
            page.locator("dialog").get_by_role("button", name="Disconnect").click()
            expect(page.locator(".ended")).to_contain_text("too many peers")
            assert first.node_id.hex() in page.locator(".facts").first.inner_text()
        with peer(engine) as second:
            page.goto(f"{watch.address}#/sessions")
            page.locator("tbody a").click()
            page.get_by_role("button", name="Ban").click()
            page.locator("dialog").get_by_role("button", name="Ban").click()
            expect(page.locator(".pill")).to_have_text("ended")
            assert [ban["who"] for ban in engine.call("peers")["bans"]] == [second.node_id.hex()]
        # Another tab, without the token, cannot.
        with Looking(browser, watch.address) as other:
            expect(other.page.locator("#foot")).to_contain_text("read-only")
            expect(other.page.get_by_role("button", name="Change limits")).to_be_hidden()


@pytest.mark.alone
@pytest.mark.long
def test_two_thousand_sessions_are_shown_without_a_stall(browser: Browser, tmp_path: Path) -> None:
    with (
        RunningEngine("--limits.max-pending-inbound", "500", workers=2, is_read=False) as engine,
        RunningWatch(engine.run_dir) as watch,
        Looking(browser, watch.address) as looking,
    ):
        page = looking.page
        scenario = tmp_path / "quiet.toml"
        scenario.write_text(
            'description = "two thousand peers that say little"\npeers = 2000\nprocesses = 2\nseconds = 150\n'
            "[ramp]\npeers_per_s = 150\n[messages]\nannouncements_per_s = 0.2\n"
        )
        module = "rlpx.engine.swarm.command"
        swarm = subprocess.Popen(
            [sys.executable, "-P", "-m", module, "--run-dir", str(engine.run_dir), "--scenario", str(scenario)],
            env={**os.environ, "PYTHONPATH": IMPORT_PATH},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            expect(tile(page, "Inbound sessions")).to_have_text("2,000", timeout=100_000)
            assert _longest_task(page) < STALL_MS
            page.goto(f"{watch.address}#/sessions")
            expect(page.locator("[role=status].note")).to_contain_text("of 2,000")
            assert page.locator("tbody tr").count() == 50
            assert _longest_task(page) < STALL_MS
            for _ in range(3):
                page.get_by_role("button", name="Next").click()
            expect(page.locator("[role=status].note")).to_contain_text("151 to 200 of 2,000")
            page.locator("#search").fill("reth")
            expect(page.locator("[role=status].note")).to_contain_text("that match “reth”")
            assert _longest_task(page) < STALL_MS
        finally:
            swarm.send_signal(signal.SIGINT)
            swarm.wait(PATIENCE_SECONDS)


def _longest_task(page: Page) -> float:
    """The longest time, in milliseconds, for which the browser's main thread was busy while we looked."""
    longest = page.evaluate(
        """(look) => new Promise((done) => {
            let longest = 0;
            const observer = new PerformanceObserver((list) => {
                for (const task of list.getEntries()) longest = Math.max(longest, task.duration);
            });
            observer.observe({ type: "longtask" });
            setTimeout(() => { observer.disconnect(); done(longest); }, look);
        })""",
        LOOK_MS,
    )
    return float(longest)
