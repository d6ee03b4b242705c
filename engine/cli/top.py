"""`rlpx-ctl top`: a running engine at a terminal: sessions, rates, workers, the last ends; keys act on a session.

It follows the engine as the page of `rlpx-watch` does, waits for an engine that restarts, and changes nothing unless it is
told to, and has asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, time
from typing import Any, ClassVar, Final

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Footer, Input

from rlpx.engine.cli import top_text
from rlpx.engine.cli.top_screens import HelpScreen, QuestionScreen, SessionScreen
from rlpx.engine.cli.top_views import EndPanel, KindPanel, Panel, SessionList, Top, WorkerPanel
from rlpx.engine.client.client import Client
from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.overview import follower
from rlpx.engine.overview.follower import Follower, Place, Said
from rlpx.engine.overview.overview import Overview

TICK_SECONDS: Final = 1.0
CALL_SECONDS: Final = 5.0
# Longer than anybody waits, and short enough to end if the screen is gone.
TAKE_SECONDS: Final = 10.0

Call = Callable[..., Any]
# Keys that are about the table.
_OF_TABLE: Final = frozenset({"search", "sort", "reverse", "look", "hold", "close_search"})

_CSS: Final = """
Screen { layout: vertical; }
#top, #workers, #kinds, #sessions, #ends { text-wrap: nowrap; text-overflow: ellipsis; }
#top { height: 3; padding: 0 1; }
#middle { height: 8; padding: 0 1; }
#workers { width: 3fr; }
#kinds { width: 2fr; }
#sessions { height: 1fr; padding: 0 1; border: round $primary-darken-1; }
#sessions:focus { border: round $accent; }
#ends { height: 8; padding: 0 1; }
.-low #middle { height: 3; }
.-low #ends { height: 3; }
#search { height: 3; display: none; }
#search.open { display: block; }
#facts { height: auto; max-height: 60%; padding: 0 1; border: round $primary-darken-1; }
#tap { height: 1fr; padding: 0 1; background: $background; }
ModalScreen { align: center middle; }
.box { width: 64; height: auto; padding: 1 2; border: round $accent; background: $surface; }
.wide { width: 96; }
.soft { color: $text-muted; margin-top: 1; }
"""


class TopApp(App[None]):
    """See the module. `call` carries out a command, blocking; the default asks the engine at `place`."""

    TITLE = "rlpx-ctl top"
    CSS = _CSS
    ENABLE_COMMAND_PALETTE = False
    # On a low terminal the sessions get the room.
    VERTICAL_BREAKPOINTS = [(0, "-low"), (32, "-high")]  # noqa: RUF012 - Textual declares it
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "Search"),
        Binding("s", "sort", "Sort"),
        Binding("r", "reverse", "Reverse"),
        Binding("t", "look", "Look"),
        Binding("d", "disconnect", "Disconnect"),
        Binding("b", "ban", "Ban"),
        Binding("space", "hold", "Hold"),
        Binding("question_mark", "help", "Help"),
        Binding("q", "quit", "Quit"),
        Binding("escape", "close_search", "Close", show=False),
    ]

    def __init__(self, place: Place, call: Call | None = None) -> None:
        super().__init__()
        self.overview = Overview()
        self._place = place
        self._call: Call = call or self._ask_engine
        self._follower = Follower(place, self._take)
        # Timers run until the very end: they hold the parts themselves, not a search for them.
        kinds = {"top": Top, "workers": WorkerPanel, "kinds": KindPanel, "ends": EndPanel}
        self._panels: list[Panel] = [kind(self.overview, name) for name, kind in kinds.items()]
        self._table = SessionList(self.overview)
        self._search = Input(placeholder="session, peer id, address, client", id="search", max_length=256)
        self._is_held = False

    def compose(self) -> ComposeResult:
        """The parts of the screen."""
        yield self._panels[0]
        with Horizontal(id="middle"):
            yield from self._panels[1:3]
        yield self._table
        yield self._search
        yield self._panels[3]
        yield Footer()

    # -- the engine ---------------------------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Begin to follow."""
        self._follower.is_listing = True
        self._follower.start()
        self._table.focus()
        self.set_interval(TICK_SECONDS, self.tick)
        self.show()

    async def on_unmount(self) -> None:
        """End the thread."""
        await asyncio.to_thread(self._follower.stop)

    def _take(self, said: Said) -> None:
        """Take what the engine said, in the follower's thread; it waits until the screen has taken it."""
        if self._loop is not None:
            taken = asyncio.run_coroutine_threadsafe(self.take(said), self._loop)
            with suppress(TimeoutError):
                taken.result(TAKE_SECONDS)

    async def take(self, said: Said) -> None:
        """Add what the engine said to the overview."""
        follower.apply(self.overview, said, now=monotonic())

    def tick(self) -> None:
        """End a second."""
        self.overview.tick(int(time()), now=monotonic())
        if not self._is_held:
            self.show()

    def show(self) -> None:
        """Draw everything as it is now."""
        now = monotonic()
        for panel in self._panels:
            panel.show(now)
        self._table.show()

    def _ask_engine(self, method: str, **parameters: Any) -> Any:  # noqa: ANN401 - JSON
        with Client(self._place.control, timeout_seconds=CALL_SECONDS, key=self._place.key) as client:
            return client.call(method, **parameters)

    async def command(self, method: str, **parameters: Any) -> Any:  # noqa: ANN401 - JSON
        """Carry out a command in a thread. Raises `EngineError` and `EngineUnavailableError`."""
        return await asyncio.to_thread(self._call, method, **parameters)

    async def find(self, session: int) -> dict[str, Any]:
        """A session as it is now, or `error` with the reason why it is not shown."""
        end = self.overview.ends.find(session)
        if end is not None:
            return {"error": f"session {session} ended: {end.ended_by} {end.reason} at {end.stage}: {end.cause}"}
        try:
            shown: dict[str, Any] = await self.command("session", session=session)
        except (EngineError, EngineUnavailableError) as error:
            return {"error": str(error)}
        return shown

    # -- keys ---------------------------------------------------------------------------------------------------------------

    def action_search(self) -> None:
        """Open the search."""
        self._search.add_class("open")
        self._search.focus()

    def action_close_search(self) -> None:
        """End the search."""
        self._search.value = ""
        self._search.remove_class("open")
        self._table.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """The table follows the typing."""
        self._table.text = event.value

    def on_input_submitted(self, _event: Input.Submitted) -> None:
        """Back to the table; the search holds."""
        self._table.focus()

    def action_sort(self) -> None:
        """Sort by the next column that is shown."""
        table = self._table
        sorts = [column.sort for column in top_text.fitting(table.size.width)]
        at = sorts.index(table.sort) if table.sort in sorts else -1
        table.sort = sorts[(at + 1) % len(sorts)]

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self._table.is_descending = not self._table.is_descending

    def action_hold(self) -> None:
        """Hold the picture, or go on."""
        self._is_held = not self._is_held
        if not self._is_held:
            self.show()
        self.notify("held: space goes on" if self._is_held else "live", timeout=2, markup=False)

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(HelpScreen())

    def action_look(self) -> None:
        """Look at the session under the cursor."""
        self._table.action_choose()

    def on_session_list_chosen(self, chosen: SessionList.Chosen) -> None:
        """Open the screen of a session."""
        row = self.overview.sessions.get(chosen.session)
        endpoint = None
        if row is not None:
            endpoint = self._place.worker(row.worker, self.overview.workers.data_endpoint(row.worker))
        self.push_screen(SessionScreen(chosen.session, self.find, endpoint, self._place.key))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Over another screen only the keys that mean something there are shown, and work."""
        if action in _OF_TABLE and len(self.screen_stack) > 1:
            return False
        return super().check_action(action, parameters)

    def _named(self) -> tuple[int, str, Text] | None:
        """The session that a key is about, its peer, and its name in a question."""
        screen, find = self.screen, self.overview.sessions.get
        row = find(screen.session) if isinstance(screen, SessionScreen) else self._table.chosen
        if row is None:
            self.notify("there is no session here", severity="warning", markup=False)
            return None
        name = Text(f"session {row.session}, {top_text.client(row) or 'in handshake'}, {row.remote}")
        return row.session, row.peer, name

    def action_disconnect(self) -> None:
        """Ask, then disconnect the session."""
        named = self._named()
        if named is None:
            return
        session, _, name = named
        question = Text("Disconnect ").append_text(name).append("?")
        self._confirm(question, f"session {session} was told to leave", "disconnect", session=session)

    def action_ban(self) -> None:
        """Ask, then ban the peer for the usual time."""
        named = self._named()
        if named is None:
            return
        session, peer, name = named
        if not peer:
            self.notify(f"the peer of session {session} has not proved its id yet", severity="warning", markup=False)
            return
        question = Text("Ban the peer of ").append_text(name).append(f" for 12 hours?\n{peer[:32]}…")
        self._confirm(question, f"{peer[:16]} is banned for 12 hours", "ban", peer=peer)

    def _confirm(self, question: Text, done: str, method: str, **parameters: Any) -> None:  # noqa: ANN401 - JSON
        async def carry_out() -> None:
            try:
                await self.command(method, **parameters)
            except (EngineError, EngineUnavailableError) as error:
                self.notify(str(error), severity="error", markup=False)
            else:
                self.notify(done, markup=False)

        def answered(answer: bool | None) -> None:  # noqa: FBT001 - Textual calls it with one argument
            if answer:
                self.run_worker(carry_out(), exit_on_error=False)

        self.push_screen(QuestionScreen(question), answered)


def run(place: Place) -> None:
    """Show the engine until the person quits."""
    TopApp(place).run()
