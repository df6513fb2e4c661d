"""From a plan of points to records: sampling, stopping, points, campaigns and `profile`."""
