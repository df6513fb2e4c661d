"""One module per table: `TITLE`, what it is, and `build()`, which returns its `Reproduction`."""

from __future__ import annotations
