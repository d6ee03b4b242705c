"""The users' sockets: commands and events."""
