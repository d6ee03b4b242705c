"""Connects a host or a program to the NATS servers of a fleet, and stays connected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Final

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from rlpx.engine.client.complaints import Complaints
from rlpx.engine.client.credentials import Credentials
from rlpx.protocol.cluster.addressing import server_urls, without_password
from rlpx.protocol.mistakes import ConfigError

# The servers must answer within this time when the host starts.
START_SECONDS: Final = 10.0
# A lost connection is noticed within this time times two, and a server is tried again after the other.
PING_SECONDS: Final = 2
RETRY_SECONDS: Final = 0.5
PENDING_BYTES: Final = 8 * 1024 * 1024
# The header of a consumer that waits for an answer about the flow.
STALLED: Final = "Nats-Consumer-Stalled"
# The last problems before there is a connection, of which an error names the first.
MAX_PROBLEMS: Final = 8


class Servers(msgspec.Struct, frozen=True):
    """Where the fleet's servers are, and with which credentials they let us in."""

    urls: tuple[str, ...]
    credentials: Credentials | None = None
    # Unsent bytes while no server is connected. A host sends nothing then but what was on its way.
    pending_bytes: int = PENDING_BYTES

    @classmethod
    def named(cls, text: str, creds: str) -> Servers:
        """The servers in `nats://a,b,c`, and the credentials in a file, if one is named. Raises `ConfigError`."""
        try:
            return cls(server_urls(text), Credentials.load(creds) if creds else None)
        except ConfigError as error:
            raise ConfigError(f"cluster_creds: {error}", error.exit_code) from error


class NatsUnavailableError(Exception):
    """No server can be used. `is_refusal`: because they do not let us in."""

    def __init__(self, text: str, *, is_refusal: bool) -> None:
        super().__init__(text)
        self.is_refusal = is_refusal


class ReconnectingClient(Client):
    """A client that may lose its servers at any moment, in the middle of a reconnection and of its own end too."""

    async def _attempt_reconnect(self) -> None:
        # If a new connection is lost at once, the first attempt may end the second one's future. nats-py 2.16 ends it again.
        with suppress(asyncio.InvalidStateError):
            await super()._attempt_reconnect()

    async def _process_err(self, err_msg: str) -> None:
        # nats-py 2.16 ends for good at most complaints. A server that wants us no more closes the connection by itself, and
        # may let us in again, as it does after its users were changed and changed back.
        problem = err_msg.strip("'")
        await self._error_cb(nats.errors.Error(f"nats: {problem}"))

    async def close(self) -> None:
        """End. What could not be sent is dropped: nats-py 2.16 would write it to a transport that is closed."""
        if not self.is_connected:
            self._pending.clear()
            self._pending_data_size = 0
        await super().close()


async def connect(
    servers: Servers,
    name: str,
    *,
    on_lost: Callable[[], None],
    on_back: Callable[[], None],
    on_problem: Callable[[str], None] = lambda _text: None,
) -> Client:
    """Connect, and call `on_lost` and `on_back` when the connection changes. Raises `NatsUnavailableError`.

    `on_problem` gets what servers complain of afterwards, and why they do not let us in again, each once in a minute.
    """
    client, credentials = ReconnectingClient(), servers.credentials
    complaints = Complaints(on_problem)
    problems: list[str] = []
    refusals: list[str] = []

    async def lost() -> None:
        on_lost()

    async def back() -> None:
        on_back()

    async def problem(error: Exception) -> None:
        text = str(error) or type(error).__name__
        if isinstance(error, nats.errors.SlowConsumerError):
            # It names each message that is lost.
            text = "messages come faster than they are read, and are lost"
        if connecting.done():
            complaints.hear(text)
            return
        problems.append(text)
        del problems[:-MAX_PROBLEMS]
        if "authorization" in text.lower():
            # By itself, the library would ask on and on.
            refusals.append(text)
            if len(refusals) >= len(servers.urls):
                connecting.cancel()

    connecting = asyncio.ensure_future(
        client.connect(
            list(servers.urls),
            name=name,
            user_jwt_cb=None if credentials is None else credentials.user_jwt,
            signature_cb=None if credentials is None else credentials.sign,
            error_cb=problem,
            disconnected_cb=lost,
            reconnected_cb=back,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RETRY_SECONDS,  # type: ignore[arg-type]  # seconds may have a fraction
            connect_timeout=PING_SECONDS,
            ping_interval=PING_SECONDS,
            max_outstanding_pings=2,
            pending_size=servers.pending_bytes,
        )
    )
    try:
        await asyncio.wait({connecting}, timeout=START_SECONDS)
    finally:
        if not connecting.done():
            connecting.cancel()
    cause = _failure_of(connecting)
    if cause is None:
        return client
    with suppress(Exception):
        await client.close()
    cause = next(iter(refusals or problems), cause)
    shown = ", ".join(map(without_password, servers.urls))
    raise NatsUnavailableError(
        f"no NATS server of {shown} can be used: {cause}", is_refusal="authorization" in cause.lower()
    )


async def is_flow(client: Client, message: Msg) -> bool:
    """Whether a message of a consumer is about the flow of the others; it is answered then.

    A server with much to say waits for these answers. Without them it says all at once, and ends a connection that does not
    read as fast.
    """
    headers = message.headers or {}
    if "Status" not in headers:
        return False
    asked = message.reply or headers.get(STALLED)
    if asked:
        await client.publish(asked)
    return True


async def forget_consumer(client: Client, stream: str, consumer: str) -> None:
    """Delete a consumer that nobody reads any more, and wait for no answer: the servers keep a thousand of a stream."""
    await client.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{consumer}")


def is_refusal(error: BaseException) -> bool:
    """Whether JetStream says no, for lack of space say. A server that is not ready yet, or has no such stream, does not."""
    if not isinstance(error, nats.js.errors.APIError) or not error.description:
        return False
    return error.code not in (HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)


def failure(what: str, error: BaseException) -> str:
    """What to tell of an error of JetStream: that something refuses, and why, or that it does not answer."""
    if isinstance(error, nats.js.errors.APIError) and is_refusal(error):
        return f"{what} refuses: {error.description}"
    return f"{what} does not answer: {error}"


def _failure_of(connecting: asyncio.Future[None]) -> str | None:
    """Why there is no connection, if there is none. Raises what is a mistake of ours."""
    unanswered = "they did not answer in time"
    if not connecting.done() or connecting.cancelled():
        return unanswered
    error = connecting.exception()
    if error is not None and not isinstance(error, OSError | nats.errors.Error | ValueError):
        raise error
    return None if error is None else str(error) or unanswered
