"""The protocols that we speak: RLPx, devp2p, eth, snap, and those between our own processes.

The package is pure: it takes bytes, time and entropy, and returns events and bytes. It has no I/O, clock, log or randomness.
"""
