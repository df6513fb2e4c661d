"""Readings besides the clocks: energy, the device's state, the environment, other processes."""
