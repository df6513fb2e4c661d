"""`python -m profiling.cli` is `vlm-roofline`."""

from __future__ import annotations

import sys

from profiling.cli import main

sys.exit(main())
