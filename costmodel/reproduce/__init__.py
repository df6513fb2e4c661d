"""Published tables recomputed, cell by cell, with a verdict on each.

    list_tables()                    names, one per table or paper
    reproduce("prumerge-table2")     -> Reproduction(rows, columns, summary, notes)

A table is a module in `costmodel/reproduce/tables`; its published figures are a file in
`costmodel/reproduce/data`, each with its source. Adding a table is adding those files.
"""

from __future__ import annotations

from costmodel.reproduce.registry import describe_tables, list_tables, reproduce
from costmodel.reproduce.reproduction import Column, Reproduction

__all__ = ["Column", "Reproduction", "describe_tables", "list_tables", "reproduce"]
