"""Questions asked of many estimates: sweeps, break-even points, frontiers and distributions."""
