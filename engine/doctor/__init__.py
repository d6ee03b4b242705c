"""`rlpx-engine doctor`: examines this machine and the settings, and says what to do."""
