"""How connections begin: the listener, accepts, dials and host names."""
