from __future__ import annotations

from tiny_models import one_thread, tiny_source  # noqa: F401 - fixtures
