"""The protocol of devp2p's rlpx.md: ECIES, handshake, frames, the base protocol, capabilities."""
