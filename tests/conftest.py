"""Settings that all tests share."""

import os

from hypothesis import HealthCheck, settings

# Shared machines stall at random: how long an example takes is no finding here. Continuous integration
# draws the same examples every time, so that a red run can be repeated.
settings.register_profile(
    "vlm-roofline",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("vlm-roofline")
