"""Print a table of transactions: the hash, when it was first announced (microseconds since 1970), and by which peer."""

from contextlib import suppress

from rlpx.engine.client import AnnouncedHashes, Event, connect
from rlpx.protocol.errors import PeerError

first: dict[bytes, tuple[int, str]] = {}
with connect() as engine, engine.feed("eth.NewPooledTransactionHashes") as feed:
    for item in feed:
        with suppress(PeerError):  # a malformed announcement
            if isinstance(item, Event) and isinstance(message := item.decode(), AnnouncedHashes):
                for name in set(message.hashes) - first.keys():
                    first[name] = item.fields["time_us"], item.fields["peer"]
                    print(name.hex(), *first[name], flush=True)
