from __future__ import annotations

from public_tables import *  # noqa: F403  (its fixtures)
