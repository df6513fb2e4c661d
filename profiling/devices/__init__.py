"""The interface to a device: its kind and its clocks."""
