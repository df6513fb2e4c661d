"""LLM-Viewer at two dates: how it counts, op by op, and the devices it knows."""
