"""The parts of the screen of `rlpx-ctl top`. Each shows an overview; the table of sessions draws only the lines that fit."""

from __future__ import annotations

from typing import ClassVar, Final

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from rlpx.engine.cli import top_text
from rlpx.engine.overview.overview import Overview
from rlpx.engine.overview.sessions import Query, SessionRow

# Two lines of the screen are not rows: the headings, and the count at the end.
_FRAME_LINES: Final = 2


class SessionList(Widget, can_focus=True):
    """The sessions, a screenful at a time: what is above and below the screen costs nothing, of 100,000 as well."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home,g", "first", "First", show=False),
        Binding("end,G", "last", "Last", show=False),
        Binding("enter", "choose", "Look", show=False),
    ]
    text = reactive("")
    sort = reactive("session")
    is_descending = reactive(default=True)
    at = reactive(0)

    class Chosen(Message):
        """A person wants to look at this session."""

        def __init__(self, session: int) -> None:
            super().__init__()
            self.session = session

    def __init__(self, overview: Overview) -> None:
        super().__init__(id="sessions")
        self._overview = overview
        self._first = 0
        # The rows on the screen.
        self.rows: list[SessionRow] = []
        self._total = 0

    @property
    def chosen(self) -> SessionRow | None:
        """The row under the cursor, as it was drawn last."""
        index = self.at - self._first
        return self.rows[index] if 0 <= index < len(self.rows) else None

    @property
    def _height(self) -> int:
        return max(1, self.size.height - _FRAME_LINES)

    def show(self) -> None:
        """Draw the sessions as they are now."""
        self._find()
        if self.at >= self._total:
            self.at = max(0, self._total - 1)
        self._first = min(max(self._first, self.at - self._height + 1, 0), self.at)
        self._find()
        self.refresh()

    def _find(self) -> None:
        query = Query(
            text=self.text,
            sort=self.sort,
            is_descending=self.is_descending,
            offset=self._first,
            limit=self._height,
        )
        found = self._overview.sessions.find(query)
        self.rows, self._total = found.rows, found.total

    def render(self) -> Text:
        """The headings, the rows, and which of how many they are."""
        columns = top_text.fitting(self.size.width)
        text = top_text.heading(columns, self.sort, is_descending=self.is_descending)
        for index, row in enumerate(self.rows):
            text.append("\n")
            text.append_text(top_text.session_line(columns, row, is_chosen=self._first + index == self.at))
        text.append("\n" * (self._height - len(self.rows) + 1))
        span = f"{self._first + 1} to {self._first + len(self.rows)}" if self.rows else "0"
        matching = f" that match '{self.text}'" if self.text else ""
        text.append(f"{span} of {self._total}{matching}", top_text.SOFT)
        return text

    def watch_at(self) -> None:
        """The cursor has moved."""
        self.show()

    def watch_text(self) -> None:
        """Another search begins at its first row."""
        self._first = self.at = 0
        self.show()

    watch_sort = watch_text
    watch_is_descending = watch_text

    def on_resize(self, _event: events.Resize) -> None:
        """More or fewer rows fit."""
        self.show()

    def action_move(self, lines: int) -> None:
        """Move the cursor."""
        self.at = min(max(0, self.at + lines), max(0, self._total - 1))

    def action_page(self, pages: int) -> None:
        """Move the cursor by a screen."""
        self.action_move(pages * self._height)

    def action_first(self) -> None:
        """Move to the first row."""
        self.at = 0

    def action_last(self) -> None:
        """Move to the last row."""
        self.at = max(0, self._total - 1)

    def action_choose(self) -> None:
        """Look at the session under the cursor."""
        row = self.chosen
        if row is not None:
            self.post_message(self.Chosen(row.session))


class Panel(Widget):
    """A part that is drawn from the overview, with the width and height that it has."""

    def __init__(self, overview: Overview, name: str) -> None:
        super().__init__(id=name)
        self.overview = overview
        self.now = 0.0

    def show(self, now: float) -> None:
        """Draw it as it is now."""
        self.now = now
        self.refresh()


class Top(Panel):
    """What it is, whether it is current, how many sessions and messages."""

    def render(self) -> Text:
        """Three lines."""
        state = top_text.state_line(self.overview, now=self.now, width=self.size.width)
        return Text("\n").join([state, top_text.summary(self.overview, now=self.now)])


class WorkerPanel(Panel):
    """The workers."""

    def render(self) -> Text:
        """A line for each that fits."""
        return top_text.worker_lines(self.overview.workers.rows(), max(1, self.size.height - 2))


class KindPanel(Panel):
    """Messages per second by kind."""

    def render(self) -> Text:
        """A line for each that fits."""
        return top_text.kind_lines(self.overview, max(1, self.size.height - 1))


class EndPanel(Panel):
    """The last ends."""

    def render(self) -> Text:
        """The latest first."""
        lines = [Text("last ends", top_text.SOFT)]
        for end, _ in zip(self.overview.ends.recent, range(self.size.height - 1), strict=False):
            lines.append(top_text.end_line(end, self.size.width))
        return Text("\n").join(lines)
