"""Seeded fuzz of the project's public doors: what goes in, which door it goes through, what came out.

    python -m fuzzing --cases 10000      # or: make fuzz N=10000

`mutation` spoils valid inputs, each `doors_*` module holds the doors of one kind, `verdict` says what
an outcome is, `known` lists the findings that are not mended yet, and `running` drives them.
"""
