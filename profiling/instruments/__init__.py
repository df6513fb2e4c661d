"""What is read beside the clocks: energy, the device's state, the environment, and who else is there."""
