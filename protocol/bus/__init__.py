"""The protocols between our processes and users' programs: control, batches of events, ZMTP."""
