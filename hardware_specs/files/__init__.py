"""Reading and writing of users' files: within bounds, whole or not at all."""
