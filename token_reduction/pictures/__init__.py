"""Pictures of what a method kept: the overlay, its panels, and where each crop lies on the picture."""
