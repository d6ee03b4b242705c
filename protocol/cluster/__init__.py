"""The decisions by which many hosts act as one fleet: pure state machines, driven by `rlpx.engine.cluster`."""
