"""Settings, and what they name: files, addresses, keys, chains, the run directory."""
