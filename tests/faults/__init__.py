"""Faults: what must hold when disks, processes and clients misbehave."""
