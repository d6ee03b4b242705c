"""Who is here and who may come: places, sessions, peers, networks."""
