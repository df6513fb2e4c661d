"""Settings that all tests share."""

from hypothesis import HealthCheck, settings

# Shared machines stall at random: how long an example takes is no finding here. The same examples are
# drawn every time, so that a red run can be repeated; `make fuzz` is where chance looks for more.
settings.register_profile(
    "vlm-roofline",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("vlm-roofline")
