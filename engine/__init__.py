"""The one process that decides: listener, ledger of all sessions, workers, users' sockets. No peer's byte reaches it."""
