from __future__ import annotations

from known_laws import *  # noqa: F403  (its fixtures)
from tiny_models import *  # noqa: F403  (its fixtures)
