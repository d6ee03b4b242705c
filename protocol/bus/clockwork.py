"""The interfaces that an endpoint needs: the used parts of a loop, of its transports and sockets, and a clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

import msgspec

from rlpx.protocol.bus.zmtp import Wire


class Transport(Protocol):
    """The part of asyncio's transports that is used."""

    def write(self, data: Wire) -> None:
        """Send the data, or buffer it."""

    def writelines(self, list_of_data: Sequence[Wire], /) -> None:
        """Send the parts one after another, or buffer them."""

    def get_write_buffer_size(self) -> int:
        """The number of bytes buffered."""

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """Set the numbers of buffered bytes at which `pause_writing` and `resume_writing` are called."""

    def pause_reading(self) -> None:
        """Stop reading."""

    def resume_reading(self) -> None:
        """Read again."""

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""

    def close(self) -> None:
        """Send what is buffered, then close."""

    def abort(self) -> None:
        """Close at once."""


class Timer(Protocol):
    """The part of asyncio's timer handles that is used."""

    def cancel(self) -> None:
        """Cancel the call."""


class Listening(Protocol):
    """The part of a bound, listening, non-blocking socket that is used."""

    def accept(self) -> tuple[Any, Any]:
        """Return a connected socket and its address. Raises `OSError`."""

    def fileno(self) -> int:
        """The descriptor."""

    def close(self) -> None:
        """Close the socket."""


class Loop(Protocol):
    """The part of an event loop that is used."""

    def call_soon(self, callback: Callable[[], object]) -> object:
        """Call the callback in the next loop iteration."""

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call the callback after this many seconds."""

    def add_reader(self, fd: int, callback: Callable[..., object], *args: object) -> None:
        """Call the callback whenever the descriptor is readable."""

    def remove_reader(self, fd: int) -> object:
        """Stop watching the descriptor."""

    def create_task(self, coro: Coroutine[Any, Any, None]) -> Any:  # noqa: ANN401 - a task; asyncio's type is not ours
        """Run the coroutine as a task."""

    def connect_accepted_socket(self, protocol_factory: Callable[[], Any], sock: Any) -> Awaitable[Any]:  # noqa: ANN401 - asyncio's
        """Make a transport for an accepted socket."""


class Clockwork(msgspec.Struct, frozen=True):
    """The loop, a monotonic clock in seconds, and whether there are descriptors to spare."""

    loop: Loop
    clock: Callable[[], float]
    has_room: Callable[[], bool]
