"""The command for swarms of simulated peers."""
