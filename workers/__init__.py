"""One uvloop process of many sessions. It shares nothing with its siblings and never imports the engine."""
