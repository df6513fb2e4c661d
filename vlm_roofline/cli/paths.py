"""Paths as they are typed."""

from __future__ import annotations

from pathlib import Path

import typer


def typed_file(text: str) -> str:
    """Return what was typed for a file, unless it is empty, which Python takes for the current folder."""
    if not text:
        raise typer.BadParameter("an empty path names no file and no folder")
    return text


def typed_path(text: str) -> Path:
    """Return the path that was typed.

    >>> typed_path("runs").name
    'runs'
    """
    return Path(typed_file(text))
