"""Files that other programs wrote: profiler traces and benchmark results."""

from __future__ import annotations

import gzip
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fuzzing.doors_files import sometimes_odd
from fuzzing.mutation import dumped, spoilt, spoilt_bytes
from fuzzing.running import Door
from fuzzing.verdict import ROOT, Wrong
from profiling import explain
from profiling.importing import Told, read_results

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

DATA = ROOT / "tests" / "data"
#: Events of a case: enough for three layers, few enough for thousands of cases.
EVENTS = 330
#: What a file does not say itself; a case is told all of it, or nothing.
TOLD = Told({}, "a100", "fp16", 2, 16, 24, 8)
SERVE = {
    "model_id": "llava-hf/llava-1.5-7b-hf", "num_prompts": 4, "max_concurrency": 2, "duration": 1.5,
    "completed": 4, "total_input_tokens": 2464, "total_output_tokens": 36, "ttfts": [0.05, 0.06],
    "median_ttft_ms": 65.0, "median_tpot_ms": 12.5,
}  # fmt: skip
LATENCY = {"avg_latency": 2.0, "latencies": [1.9, 2.0, 2.1], "percentiles": {"50": 2.0}}


@lru_cache(maxsize=1)
def _trace() -> dict[str, Any]:
    """The first events of a whole trace, with the kernels that they launched."""
    packed = (DATA / "traces" / "h100_bert_small.json.gz").read_bytes()
    document: dict[str, Any] = json.loads(gzip.decompress(packed))
    events = sorted(document["traceEvents"], key=lambda event: event.get("ts", 0))
    document["traceEvents"] = events[:EVENTS] + [
        event for event in events[EVENTS:] if event.get("cat") in ("kernel", "gpu_memcpy")
    ]
    return document


def _trace_case(random: Random, folder: Path) -> Path:
    document = _trace()
    events = list(document["traceEvents"])
    # What is spoilt stands at the beginning of a list, and the reader sorts by itself.
    random.shuffle(events)
    changed = spoilt(random, {**document, "traceEvents": events})
    data = dumped(changed).encode("utf-8", errors="surrogatepass")
    if random.random() < 0.2:
        data = spoilt_bytes(random, data)
    if random.random() < 0.3:
        data = gzip.compress(data, 1)
        if random.random() < 0.3:
            data = spoilt_bytes(random, data)
    path = folder / "trace.json"
    path.write_bytes(data)
    return path


def _explained(path: Path) -> Any:
    found = explain(path)
    parts = found.attributed_time_s + found.unattributed_time_s + found.copies_time_s
    if abs(parts - found.kernel_time_s) > 1e-3 * found.kernel_time_s + 1e-9:
        raise Wrong(f"parts of {parts} s of {found.kernel_time_s} s")
    both = explain(path, path)
    return [json.loads(json.dumps(each.to_dict(), allow_nan=False)) for each in (found, both)]


@lru_cache(maxsize=1)
def _results() -> tuple[tuple[str, Any], ...]:
    documents = [("serve.json", SERVE), ("latency.json", LATENCY)]
    for name in ("lmms_eval_mme.json", "optimum_benchmark.json"):
        documents.append((name, json.loads((DATA / "results" / name).read_text())))
    tables = ("optimum_full_report.csv", "optimum_a100.csv", "edge_llm.csv")
    return (*documents, *((name, (DATA / "results" / name).read_text()) for name in tables))


def _result_case(random: Random, folder: Path) -> Path:
    name, content = random.choice(_results())
    if isinstance(content, str):
        lines = content.splitlines()[: random.choice((2, 5))]
        for _ in range(random.choice((0, 1, 2))):
            at = random.randrange(len(lines))
            cells = lines[at].split(",")
            worse = (
                "",
                "-1",
                "0",
                "nan",
                "inf",
                "1e400",
                "9" * 5000,
                "\x1b[2J",
                "x",
                '"',
                "1e-400",
            )
            cells[random.randrange(len(cells))] = random.choice(worse)
            lines[at] = ",".join(cells)
        data = "\n".join(lines).encode()
    else:
        data = dumped(spoilt(random, content)).encode("utf-8", errors="surrogatepass")
    path = folder / name
    path.write_bytes(spoilt_bytes(random, data) if random.random() < 0.2 else data)
    return path


def _imported(path: Path) -> Any:
    found = [read_results(path, told) for told in (None, TOLD)]
    return [json.loads(json.dumps(r.to_dict(), allow_nan=False)) for f in found for r in f.records]


DOORS = (
    Door("traces", sometimes_odd(_trace_case), _explained, heavy=10),
    Door("foreign results", sometimes_odd(_result_case), _imported, heavy=2),
)
