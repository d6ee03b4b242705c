"""Print every peer that becomes active: its id, its client, and what it shares with us."""

from rlpx.engine.client import Event, connect

with connect() as engine:
    for item in engine.feed("session.established"):
        if isinstance(item, Event):
            print(item.fields["peer"][:16], item.fields["client"], *item.fields["shared"], flush=True)
