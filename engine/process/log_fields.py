"""The fields of log lines, by name: what each means, in every line that has it.

Programs read these names from JSON lines, so they do not change. A test compares them with all calls of the log, and README
shows this table.
"""

from __future__ import annotations

from typing import Final

# In every line.
ALWAYS: Final = {
    "event": "What has happened, in words that stay the same",
    "level": "`debug`, `info`, `warning` or `error`",
    "timestamp": "Time, ISO 8601, UTC",
}
FIELDS: Final = {
    "accepted": "Connections accepted in the last minute",
    "active": "Active sessions now",
    "bytes": "Bytes",
    "bytes_in": "Bytes received from peers",
    "bytes_out": "Bytes sent to peers",
    "cause": "Why, in words",
    "causes": "The most frequent causes of refusals, with their numbers",
    "chain": "Name or file of the chain",
    "client": "Client name of the peer",
    "descriptors": "File descriptors that a process may have",
    "dialled": "Dials begun in the last minute",
    "direction": "`inbound` or `outbound`",
    "drain_s": "Seconds within which a worker that leaves ends its sessions; 0: they stay",
    "duration_ms": "Duration of the session",
    "ended": "Sessions and dials that ended in the last minute, by `ended_by`",
    "ended_by": "Who ended it: `us`, `peer`, `network`, `worker_lost` or `engine`",
    "enode": "Enode, ours or of a peer",
    "error": "The text of an error",
    "established": "Sessions that became active in the last minute",
    "events": "Number of events",
    "exception": "Traceback of a fault of ours",
    "file": "A file",
    "fleet": "Name of the fleet of hosts",
    "heir": "Number of the worker that takes the place of another one",
    "host": "Name of a host of the fleet",
    "is_replaced": "Whether another worker is started in its place",
    "limits": "The limits of `[limits]`",
    "lines": "Number of lines",
    "listen": "Where we listen",
    "log_lines_lost": "Log lines lost since the start",
    "logger": "Name of the library that wrote the line",
    "loop_lag_ms": "Longest delay of a worker's loop in the last minute",
    "messages_in": "Messages received in the last minute",
    "messages_out": "Messages sent in the last minute",
    "method": "Name of a command",
    "needs_restart": "Settings that changed and take effect at a restart only",
    "pause_ms": "Milliseconds until the next attempt",
    "peer": "Peer id, hex",
    "pending": "Sessions now whose handshake is not done",
    "pid": "Process id",
    "program": "Name of a program beside the engine",
    "reason": "Name of the Disconnect reason",
    "refused": "Connections refused in the last minute",
    "remote": "Address of the other side",
    "replaced": "Number of workers that were replaced",
    "reply": "The beginning of the reply to a command, JSON",
    "session": "Number of the session",
    "sessions": "Number of sessions",
    "stage": "How far the session came",
    "started": "Numbers of the workers that were started",
    "text": "What a process wrote to its stderr",
    "times": "How often",
    "version": "Version of the engine",
    "worker": "Number of the worker",
    "workers": "Workers: how many, or their numbers",
}


def as_table() -> str:
    """The rows of README's table."""
    return "".join(f"| `{name}` | {text}. |\n" for name, text in {**ALWAYS, **FIELDS}.items())
