"""`rlpx-watch`: what monitoring systems and browsers see of an engine, over HTTP."""
