"""The kernels of a run, from the profiler's trace to op profiles."""
