from __future__ import annotations

from fake_cuda import *  # noqa: F403  (its fixtures)
from known_laws import *  # noqa: F403  (its fixtures)
from tiny_models import *  # noqa: F403  (its fixtures)
from transformers import LlavaForConditionalGeneration  # noqa: F401  (before what is there is frozen)
