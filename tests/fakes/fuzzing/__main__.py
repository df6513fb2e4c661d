"""`python -m fuzzing`: a long run over every door, with progress, and a table of figures at the end."""

from __future__ import annotations

import argparse
import csv
import datetime
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from fuzzing.doors_api import DOORS as API
from fuzzing.doors_command_line import DOORS as COMMAND_LINE
from fuzzing.doors_files import DOORS as FILES
from fuzzing.doors_foreign import DOORS as FOREIGN
from fuzzing.outputs import WRITERS, killed_often, prepared
from fuzzing.running import Tally, fuzzed

DOORS = {door.name: door for door in (*API, *COMMAND_LINE, *FILES, *FOREIGN)}
#: Cases of one piece of work: small enough that the processors end together.
PIECE = 500
COLUMNS = ("what", "cases", "ok", "refused", "faults", "processor_s", "date")


class Piece(NamedTuple):
    """A door's cases from a seed of their own."""

    door: str
    cases: int
    seed: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="per door")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--door", action="append", choices=DOORS, help="only these")
    parser.add_argument("--kills", type=int, default=0, help="of each command that writes")
    parser.add_argument("--record", type=Path, help="CSV file of the figures")
    given = parser.parse_args()
    tallies, spent = run_doors(given.door or list(DOORS), given.cases, given.seed)
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    rows = [
        {
            "what": door, "cases": tally.cases, "ok": tally.kinds["ok"],
            "refused": tally.kinds["refused"], "faults": tally.kinds["failed"],
            "processor_s": round(spent[door]), "date": today,
        }
        for door, tally in tallies.items()
    ]  # fmt: skip
    for tally in tallies.values():
        for cause, count in (tally.causes + tally.known).most_common():
            mark = "known" if cause in tally.known else "NEW"
            print(f"{mark:5} {tally.door}: {count} x {cause}; {tally.example[cause]}"[:400])
    killed, failed = killed_rows(given.kills, given.seed)
    rows += [row | {"date": today} for row in killed]
    for row in rows:
        print(f"{row['what']:28} " + " ".join(f"{row[name]:>9}" for name in COLUMNS[1:]))
    if given.record:
        with given.record.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return int(failed or any(tally.causes for tally in tallies.values()))


def run_doors(names: list[str], cases: int, seed: int) -> tuple[dict[str, Tally], dict[str, float]]:
    """Drive doors on all processors; return the tally and the processor's seconds of each."""
    pieces = []
    for name in names:
        total = max(1, cases // DOORS[name].heavy)
        pieces += [
            Piece(name, min(PIECE, total - first), f"{seed}/{first}")
            for first in range(0, total, PIECE)
        ]
    whole = sum(piece.cases for piece in pieces)
    done, started = 0, time.monotonic()
    tallies = {name: Tally(name) for name in names}
    spent = dict.fromkeys(names, 0.0)
    # Forked, so that what a case leaves behind in a process ends with the piece.
    with multiprocessing.get_context("fork").Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        for tally, seconds in pool.imap_unordered(run_piece, pieces, chunksize=1):
            tallies[tally.door].add(tally)
            spent[tally.door] += seconds
            done += tally.cases
            left = (time.monotonic() - started) / done * (whole - done)
            sys.stderr.write(f"{done} of {whole} cases, {left:.0f} s left\n")
    return tallies, spent


def run_piece(piece: Piece) -> tuple[Tally, float]:
    """Run one piece of a door; return its tally and the processor's seconds."""
    started = time.process_time()
    door = DOORS[piece.door]
    *_, tally = fuzzed(door, piece.cases * door.heavy, piece.seed)
    return tally, time.process_time() - started


def killed_rows(kills: int, seed: int) -> tuple[list[dict[str, object]], bool]:
    """Kill the commands that write; return their figures and whether one lost, tore or added a file."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        inputs = prepared(Path(folder)) if kills else Path(folder)
        for name in ("sweep-csv", "sweep-parquet", "calibrate") if kills else ():
            file_name, words = WRITERS[name]
            started = time.monotonic()
            faults = 0
            try:
                counts = killed_often(
                    lambda place, words=words: words(inputs, place), file_name, kills, seed
                )
            except AssertionError as error:
                faults = 1
                counts = {"killed": 0, "ended first": 0}
                print(f"kill -9 of {name}: {error}")
            rows.append(
                {
                    "what": f"kill -9 of {name}", "cases": sum(counts.values()), "ok": counts["killed"],
                    "refused": counts["ended first"], "faults": faults,
                    "processor_s": round(time.monotonic() - started),
                }
            )  # fmt: skip
    return rows, any(row["faults"] for row in rows)


if __name__ == "__main__":
    sys.exit(main())
