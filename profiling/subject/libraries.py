"""`transformers` and its optional parts, imported when they are needed and without their remarks."""

from __future__ import annotations

import logging
from typing import Any

from hardware_specs.errors import MissingDependencyError


def transformers_library() -> Any:
    """Return the module `transformers`, without the remarks its optional parts make on import.

    Raises:
        MissingDependencyError: it or torch is not installed.
    """
    quiet_imports()
    try:
        import torch  # noqa: F401  (transformers imports without torch but then builds nothing)
        import transformers
    except ImportError as error:
        raise MissingDependencyError(error.name or "transformers", "profile") from error
    return transformers


def quiet_imports() -> None:
    """Silence what torchao says on import: it names every kernel library this torch cannot use."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
