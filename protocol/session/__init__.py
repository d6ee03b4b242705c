"""One peer connection, without I/O: its stages, messages, requests and events."""
