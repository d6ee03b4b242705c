"""The needs of every program around its work: start, standard streams, log, service manager, processes."""
