"""Published tables recomputed, cell by cell, with a verdict on each.

    list_tables()                    names, one per table or paper
    reproduce("prumerge-table2")     -> Reproduction(rows, columns, summary, notes)

A paper's counts are an entry in `papers.py`, any other table is a module in `tables`; the published
figures are a file in `data`, each with its source.
"""

from __future__ import annotations

from costmodel.reproduce.registry import describe_tables, list_tables, reproduce
from costmodel.reproduce.reproduction import Column, Reproduction

__all__ = ["Column", "Reproduction", "describe_tables", "list_tables", "reproduce"]
