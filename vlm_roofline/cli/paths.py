"""Paths as they are typed."""

from __future__ import annotations

from pathlib import Path

import typer


def typed_path(text: str) -> Path:
    """Return the path that was typed; an empty one, which Python takes for the current folder, is refused.

    >>> typed_path("runs").name
    'runs'
    """
    if not text:
        raise typer.BadParameter("an empty path names no file and no folder")
    return Path(text)
