"""A process of simulated peers."""
