"""Every language spoken: RLPx, devp2p, eth, snap and our own inter-process schemas.

Pure: bytes, time and entropy in, events and bytes out. No I/O, no clock, no logging, no randomness.
"""
