"""Everything that touches a device: clocks, events, streams, memory, graphs, names; one file per kind."""
