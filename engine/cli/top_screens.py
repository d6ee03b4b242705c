"""The screens over the table: the help, a question before something is done, and one session with its messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen, Screen
from textual.widgets import Footer, RichLog, Static

from rlpx.engine.cli import ctl_text, top_text
from rlpx.engine.overview.session_feed import follow_session
from rlpx.engine.overview.tap import ShownMessage, ShownRequest, Tap
from rlpx.protocol.errors import printable

HELP = """\
arrows, j k      move                 /      search: number, peer id, address, client
page up, down    a screen             escape ends the search, or closes what is open
enter, t         look at a session:   s      sort by the next column
                 its messages, live   r      the other way round
d                disconnect           space  hold the picture, and go on
b                ban the peer         q      quit

Sessions: "rtt" is the round trip of pings, "in/s" and "out/s" are bytes on the wire.
Workers: "lag" is how long a peer's byte waited for its worker, at worst in the last second;
"in progress" are unfinished and waiting messages, and the budget for them.
"""

# How often new messages of a session are drawn.
TAP_SECONDS = 0.5
SHOWN_LINES = 1000


class HelpScreen(ModalScreen[None]):
    """The keys, and how to read the figures."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q,enter", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        """The text."""
        with Vertical(classes="box wide"):
            yield Static(HELP, markup=False)


class QuestionScreen(ModalScreen[bool]):
    """Asks before something is done: y or n."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
    ]

    def __init__(self, question: Text) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """The question."""
        with Vertical(classes="box"):
            yield Static(self._question, id="question", markup=False)
            yield Static("y  yes      n  no", classes="soft", markup=False)

    def action_answer(self, answer: bool) -> None:  # noqa: FBT001 - Textual calls it with one argument
        """Close with the answer."""
        self.dismiss(answer)


class SessionScreen(Screen[None]):
    """One session: what `rlpx-ctl session` shows of it, and its messages as they pass."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "app.pop_screen", "Back"),
        Binding("space", "hold", "Hold"),
        Binding("d", "app.disconnect", "Disconnect"),
        Binding("b", "app.ban", "Ban"),
    ]

    def __init__(
        self, session: int, find: Callable[[int], Awaitable[dict[str, Any]]], endpoint: str | None, key: str | None
    ) -> None:
        super().__init__()
        self.session = session
        self._find = find
        self._endpoint = endpoint
        self._key = key
        self.tap = Tap()
        self._feed: asyncio.Task[None] | None = None
        self._is_held = False
        # Timers run until the very end: they hold the parts themselves.
        self._facts = Static(f"session {session}", id="facts", markup=False)
        self._log = RichLog(id="tap", max_lines=SHOWN_LINES, markup=False, highlight=False, wrap=False)

    def compose(self) -> ComposeResult:
        """Its facts above, its messages below."""
        yield self._facts
        yield self._log
        yield Footer()

    async def on_mount(self) -> None:
        """Begin to look."""
        self._log.focus()
        if self._endpoint is None:
            self.tap.end("the engine has no data endpoint over TCP (data.endpoint)")
        else:
            feed = follow_session(self._endpoint, self.session, self.tap, key=self._key)
            self._feed = asyncio.create_task(feed)
        self.set_interval(TAP_SECONDS, self.show_messages)
        self.set_interval(1.0, self.show_facts)
        await self.show_facts()

    async def on_unmount(self) -> None:
        """Nobody looks any more: the feed is closed."""
        if self._feed is not None:
            self._feed.cancel()
            with suppress(asyncio.CancelledError):
                await self._feed

    async def show_facts(self) -> None:
        """Show the session as it is now, or why it cannot be shown."""
        self._facts.update(_facts(await self._find(self.session)))

    def show_messages(self) -> None:
        """Add the messages since the last time."""
        tapped = None if self._is_held else self.tap.collect()
        if tapped is None:
            return
        log = self._log
        for message in tapped.messages:
            log.write(_message_line(message))
        for request in tapped.requests:
            if request.answered:
                log.write(_request_line(request))
        for count, what in ((tapped.omitted, "more than can be shown"), (tapped.lost, "missed")):
            if count:
                log.write(Text(f"  … {count} {what}", top_text.SOFT))
        if tapped.cause:
            log.write(Text(f"  the messages end here: {tapped.cause}", "bold red"))

    def action_hold(self) -> None:
        """Hold the messages, or go on. Meanwhile they are counted."""
        self._is_held = not self._is_held
        self.sub_title = "held" if self._is_held else ""


def _facts(shown: dict[str, Any]) -> Text:
    if "error" in shown:
        return Text(f"{shown['error']}", "bold red")
    names = ("client", "remote", "direction", "stage", "worker", "peer", "shared", "capabilities", "rtt_ms")
    counts = ("bytes_in", "bytes_out", "messages_in", "messages_out", "queued_bytes")
    lines = [(ctl_text.label(name), ctl_text.value(name, shown.get(name))) for name in (*names, *counts)]
    chain = shown.get("chain") or {}
    if chain:
        lines.append(("chain", f"network {chain['network_id']} fork {chain['fork_hash']} head {chain['head']}"))
    text = Text(f"session {shown['session']}\n", "bold")
    for index, (name, value) in enumerate(lines):
        text.append(f"{name:<14}", f"not bold {top_text.SOFT}")
        # Peers choose some values: printable, and of one line.
        text.append(f"{printable(value, 200)}\n" if index + 1 < len(lines) else printable(value, 200), "not bold")
    return text


def _message_line(message: ShownMessage) -> Text:
    text = Text(no_wrap=True)
    text.append(f"{top_text.clock(message.time_us)} ", top_text.SOFT)
    is_in = message.way == "in"
    text.append("← in  " if is_in else "→ out ", top_text.IN if is_in else top_text.OUT)
    text.append(f"{message.name} ", "bold")
    text.append(f"{top_text.volume(message.size)} ", top_text.SOFT)
    text.append(message.summary)
    return text


def _request_line(request: ShownRequest) -> Text:
    whose = "the peer's" if request.way == "in" else "our"
    after = top_text.milliseconds(request.after_ms)
    return Text(f"         {whose} {request.name} was answered after {after}", top_text.SOFT)
