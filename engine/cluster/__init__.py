"""A host of a fleet: its decisions are those of `rlpx.protocol.cluster`, its store is a bucket of NATS."""
