"""Settings that all tests share."""

import gc

import pytest
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


@pytest.fixture
def meta_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold no values for transformers to check."""
    monkeypatch.setenv("TRANSFORMERS_DISABLE_TORCH_CHECK", "1")


@pytest.fixture(scope="module", autouse=True)
def what_is_imported_is_not_searched_for_garbage() -> None:
    """A full collection looks at what is new, not at a million objects of torch and transformers.

    Every measured point begins with one, which took 0.2 s.
    """
    gc.collect()
    gc.freeze()
