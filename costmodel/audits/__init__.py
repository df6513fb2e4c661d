"""Audits of published tables: contradictions, floors, and the assumptions behind their digits.

    audit("table.csv") -> Audit(verdict, cells, matched, p_value, assumptions, rivals, ...)

What is printed is kept as text, since its digits are the evidence.
"""

from __future__ import annotations

from costmodel.audits.audit import Audit, audit, read_table
from costmodel.audits.table import Cell, PublishedTable, Schedule, parse_schedule

__all__ = [
    "Audit",
    "Cell",
    "PublishedTable",
    "Schedule",
    "audit",
    "parse_schedule",
    "read_table",
]
