"""What touches a device: its clocks."""
