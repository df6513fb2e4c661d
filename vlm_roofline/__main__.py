"""`python -m vlm_roofline` is `vlm-roofline`."""

from __future__ import annotations

import sys

from vlm_roofline.cli import main

sys.exit(main())
