"""The worker processes, and calls that wait for them."""
