"""A capability's messages as Structs: `Dialect.decode` reads a peer's payload, `encode` writes one of ours.

A table has the form of each message id in each version; anything else is illegal. `messages.py` has the dialect of eth,
`snap_messages.py` that of snap. The caller checks whether the content is true: hashes, signatures, fit to the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Generic, NamedTuple, TypeVar

from rlpx.protocol.errors import MessageError, RlpError, UsageError, reading
from rlpx.protocol.eth.schema import Shape, Source
from rlpx.protocol.eth.table import MAX_MESSAGE_BYTES, MessageType

Message = TypeVar("Message")


class Form(NamedTuple):
    """The form of a message from some version on: its Struct, and how to read and write it.

    `max_elements` bounds the list elements on all levels, and so the objects built from 10 MiB of the smallest elements.
    `check` raises `MessageError` if fields do not fit each other.
    """

    struct: type
    shape: Shape
    max_elements: int
    check: Callable[[Any], None] | None = None


class Row(NamedTuple):
    """One message of one version."""

    name: str
    form: Form


class Dialect(Generic[Message]):
    """The messages of one capability in all versions. `messages` has, by version, the Struct of each message id.

    If `is_exact`, a message must fill its payload; otherwise bytes after it are ignored.
    """

    def __init__(
        self,
        name: str,
        table: tuple[tuple[int, ...], Iterable[MessageType]],
        forms: Mapping[str, Mapping[int, Form]],
        *,
        is_exact: bool,
    ) -> None:
        """`table` has the versions and the rows; `forms` has, by the name of a row, each form by its first version."""
        self.name: Final = name
        self._is_exact = is_exact
        versions, rows = table
        self._rows = {version: _rows(version, rows, forms) for version in versions}
        self.messages: Final[Mapping[int, Mapping[int, type]]] = MappingProxyType(
            {
                version: MappingProxyType({number: row.form.struct for number, row in found.items()})
                for version, found in self._rows.items()
            }
        )
        self._ids = {version: {struct: number for number, struct in ids.items()} for version, ids in self.messages.items()}

    def decode(self, version: int, message_id: int, payload: bytes) -> Message:
        """Return the message in a payload. Raises `RlpError`, `MessageError`, and `UsageError` for an unknown version."""
        row = self._of_version(version).get(message_id)
        if row is None:
            raise MessageError(f"{self.name}/{version} has no message 0x{message_id:02x}")
        if len(payload) > MAX_MESSAGE_BYTES:
            raise MessageError(f"a message of {len(payload)} bytes")
        form = row.form
        message: Message
        with reading(row.name):
            message, end = form.shape.read(Source(payload, form.max_elements), 0, len(payload))
            if self._is_exact and end != len(payload):
                raise RlpError("bytes after the message")
            if form.check is not None:
                form.check(message)
        return message

    def encode(self, version: int, message: Message) -> bytes:
        """Return the payload of a message. Raises `UsageError` if the version lacks this form, or a field does not fit."""
        form = self._of_version(version)[self.id_of(version, message)].form
        payload = form.shape.write(message)
        if form.check is not None:
            try:
                form.check(message)
            except MessageError as error:
                raise UsageError(str(error)) from error
        return payload

    def id_of(self, version: int, message: Message) -> int:
        """Return the id of a message within the capability. Raises `UsageError` if the version lacks it in this form."""
        self._of_version(version)
        number = self._ids[version].get(type(message))
        if number is None:
            raise UsageError(f"{self.name}/{version} has no {type(message).__name__}")
        return number

    def _of_version(self, version: int) -> Mapping[int, Row]:
        rows = self._rows.get(version)
        if rows is None:
            raise UsageError(f"{self.name}/{version} is not spoken here")
        return rows


def _rows(version: int, rows: Iterable[MessageType], forms: Mapping[str, Mapping[int, Form]]) -> dict[int, Row]:
    """Return the latest form of each message id of a version."""
    found = {}
    for row in rows:
        if row.is_in(version):
            by_version = forms[row.name]
            found[row.id] = Row(row.name, by_version[max(since for since in by_version if since <= version)])
    return found
