"""What a record says of its model: a name that leads to no file on any machine, and the config itself.

Records are shared. A path would reveal a user's name and projects, and a reader that followed it, or a
hub id, would open or fetch whatever another user's record names. So a model that is not shipped is
called by its folder's last name and a hash of its config, and the record carries that config.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotations of records
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.models import config_dict, list_models, load_model, model_from_config
from costmodel.models.hub import is_hub_id
from costmodel.models.registry import ALIASES
from costmodel.models.scale import split_scale
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.models import ModelConfig


def public_name(model: str) -> str:
    """Return the name of a model, with its scale, for records and file names; names that are public stay.

    >>> public_name("llava-1.5-7b@layers=4"), public_name("/home/me/models/llava")
    ('llava-1.5-7b@layers=4', 'llava')
    """
    if is_shipped(model):
        return model
    source, scale = split_scale(model)
    suffix = "" if scale is None else f"@{scale}"
    try:
        path = Path(source).expanduser()
        exists = path.exists()
    except (OSError, ValueError, RuntimeError):  # a name no file can have
        return model
    if exists:
        document = json.dumps(_config(config_dict(source)), sort_keys=True)
        digest = hashlib.sha256(document.encode()).hexdigest()[:12]
        folder = (path if path.is_dir() else path.parent).resolve()
        # A config in somebody's home would be called by their name.
        words = [] if folder == Path.home() else [folder.name]
        return "-".join((*filter(None, words), digest)) + suffix
    if is_hub_id(source):
        return model
    return source.rstrip("/\\").replace("\\", "/").rpartition("/")[2] + suffix


def carried_config(model: str) -> Mapping[str, Any] | None:
    """Return the config that a record carries: None for a shipped model, else the scaled one."""
    return None if is_shipped(model) else _config(config_dict(model))


def model_of(name: str, config: Mapping[str, Any] | None) -> ModelConfig:
    """Return the model of a record, by its name and the config it carries; nothing is opened or fetched.

    Raises:
        InvalidFileError: the config is none.
        InvalidInputError: a name that is not shipped, and no config.
    """
    if config is not None:
        return model_from_config(dict(config), name)
    if is_shipped(name):
        return load_model(name)
    raise InvalidInputError(
        f"the record names the model {name!r}, which is not shipped, and carries no config of it; "
        "measure it again"
    )


def is_shipped(model: str) -> bool:
    """Return whether a name, with or without its scale, is one of a shipped model."""
    name = split_scale(model)[0]
    return ALIASES.get(name, name) in list_models()


def _config(document: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what says where the config came from, such as `_name_or_path`."""
    return {key: value for key, value in document.items() if not key.startswith("_")}
