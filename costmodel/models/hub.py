"""A config.json from the Hugging Face hub: fetched once, kept in the hub's own cache, never any code."""

from __future__ import annotations

import re
from pathlib import Path

from hardware_specs.errors import InvalidInputError, MissingDependencyError

#: Seconds within which the hub must answer at all.
REACH_S = 10.0

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def is_hub_id(text: str) -> bool:
    """Tell whether a text has the form of a hub id, `owner/name`.

    >>> is_hub_id("llava-hf/llava-1.5-7b-hf"), is_hub_id("./model"), is_hub_id("a/b/config.json")
    (True, False, False)
    """
    return _HUB_ID.fullmatch(text) is not None and not text.endswith(".json")


def fetch_config(hub_id: str) -> Path:
    """Return the path of a hub repository's config.json, from the cache where it is there.

    Raises:
        MissingDependencyError: huggingface_hub is not installed.
        InvalidInputError: no such repository, no access, or no network; says what to do.
    """
    try:
        from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            HFValidationError,
            RepositoryNotFoundError,
        )
        from huggingface_hub.utils import get_session  # type: ignore[attr-defined]
    except ImportError as error:
        raise MissingDependencyError("huggingface_hub", "profile") from error
    try:
        cached = try_to_load_from_cache(hub_id, "config.json")
        if isinstance(cached, str):
            return Path(cached)
        # Without a network the download below would try again for half a minute; this fails at once.
        get_session().head(constants.ENDPOINT, timeout=REACH_S)
        return Path(hf_hub_download(hub_id, "config.json"))
    except GatedRepoError as error:
        raise InvalidInputError(
            f"the hub repository {hub_id!r} is gated: accept its licence on huggingface.co, run "
            "`hf auth login`, or give a local config.json"
        ) from error
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise InvalidInputError(
            f"the hub has no repository {hub_id!r}, or it is private; `vlm-roofline models list` "
            "names the shipped models, `hf auth login` opens private ones"
        ) from error
    except EntryNotFoundError as error:
        # Its kind for a file that is not in the cache while the hub is out of reach says nothing of the hub.
        if type(error).__name__ == "LocalEntryNotFoundError":
            raise _unreachable(hub_id, error) from error
        raise InvalidInputError(f"the hub repository {hub_id!r} has no config.json") from error
    except Exception as error:  # whatever its HTTP client raises: there is no common base
        raise _unreachable(hub_id, error) from error


def _unreachable(hub_id: str, error: Exception) -> InvalidInputError:
    return InvalidInputError(
        f"config.json of {hub_id!r} is not in the local cache and the hub cannot be reached "
        f"({type(error).__name__}); run `hf download {hub_id} config.json` where there is a network, "
        "or give the path of a config.json, or a shipped name (`vlm-roofline models list`)"
    )
