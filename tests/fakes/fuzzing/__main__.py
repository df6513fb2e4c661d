"""`python -m fuzzing`: a long run over every door, with progress and a table at the end."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from fuzzing.doors_api import DOORS as API
from fuzzing.doors_command_line import DOORS as COMMAND_LINE
from fuzzing.doors_files import DOORS as FILES
from fuzzing.outputs import WRITERS, killed_often, prepared
from fuzzing.running import Tally, fuzzed

DOORS = (*API, *COMMAND_LINE, *FILES)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="per door")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--door", action="append", help="only these")
    parser.add_argument("--kills", type=int, default=0, help="of each command that writes")
    given = parser.parse_args()
    tallies = []
    print(
        f"{'door':16} {'cases':>8} {'ok':>8} {'refused':>8} {'failed':>7} {'known':>6} {'seconds':>8}"
    )
    for door in DOORS:
        if given.door and door.name not in given.door:
            continue
        started = time.perf_counter()
        tally = Tally(door.name)
        total = max(1, given.cases // door.heavy)
        for tally in fuzzed(door, given.cases, given.seed):
            if sys.stderr.isatty() and tally.cases % 100 == 0:
                spent = time.perf_counter() - started
                left = spent / tally.cases * (total - tally.cases)
                sys.stderr.write(f"\r{door.name}: {tally.cases} of {total}, {left:.0f} s left   \r")
        known = sum(tally.known.values())
        print(
            f"{door.name:16} {tally.cases:8} {tally.kinds['ok']:8} {tally.kinds['refused']:8} "
            f"{tally.kinds['failed'] - known:7} {known:6} {time.perf_counter() - started:8.0f}",
            flush=True,
        )
        tallies.append(tally)
    for tally in tallies:
        for cause, count in (tally.causes + tally.known).most_common():
            mark = "known" if cause in tally.known else "NEW"
            print(f"{mark:5} {tally.door}: {count} x {cause}; {tally.example[cause]}"[:400])
    return int(any(tally.causes for tally in tallies) | _killed(given.kills, given.seed))


def _killed(kills: int, seed: int) -> bool:
    """Kill the commands that write; whether one of them lost, tore or added a file."""
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        inputs = prepared(Path(folder)) if kills else Path(folder)
        for name in ("sweep-csv", "sweep-parquet", "calibrate") if kills else ():
            file_name, words = WRITERS[name]
            try:
                counts = killed_often(
                    lambda place, words=words: words(inputs, place), file_name, kills, seed
                )
            except AssertionError as error:
                failed = True
                print(f"kill -9 of {name}: {error}")
            else:
                print(f"kill -9 of {name}: {counts}, nothing lost, torn or left", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
