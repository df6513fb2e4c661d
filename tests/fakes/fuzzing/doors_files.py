"""Every file a user hands in: configs, calibrations, devices, tables, records, pictures."""

from __future__ import annotations

import io
import json
import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from costmodel import audit, estimate, load_model
from costmodel.calibration import Calibration, fit_calibration
from fuzzing.doors_command_line import called
from fuzzing.mutation import dumped, spoilt, spoilt_bytes
from fuzzing.running import Door
from fuzzing.verdict import ROOT
from hardware_specs import load_hardware
from hardware_specs.errors import InvalidInputError
from profiling import load_measurements, reconcile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

A100 = "nvidia-a100-sxm4-80gb"
#: How often a file is none: a pipe without a writer, a device without an end, a link to nowhere.
ODD_SHARE = 0.01


def sometimes_odd(case: Callable[[Random, Path], Path]) -> Callable[[Random, Path], Path]:
    """Put now and then something else in the place of the file that a case makes."""

    def made(random: Random, folder: Path) -> Path:
        for old in (*folder.iterdir(), *folder.glob("records/*")):
            if not old.is_dir() or old.is_symlink():
                old.unlink()
            elif old.name != "records":
                old.rmdir()
        path = case(random, folder)
        if random.random() < ODD_SHARE:
            place = path / random.choice(("bad.json", "x.jsonl", "x_ops.json"))
            place = place if path.is_dir() else path
            place.unlink(missing_ok=True)
            what = random.choice(
                ("pipe", "/dev/zero", "/nosuch", "/proc/self/mem", "itself", "folder")
            )
            if what == "pipe":
                os.mkfifo(place)
            elif what == "folder":
                place.mkdir()
            else:
                place.symlink_to(place if what == "itself" else what)
        return path

    return made


def _write(random: Random, path: Path, document: Any) -> Path:
    """Write a spoilt document, now and then with spoilt bytes as well."""
    text = dumped(spoilt(random, document)).encode("utf-8", errors="surrogatepass")
    path.write_bytes(spoilt_bytes(random, text) if random.random() < 0.2 else text)
    return path


@lru_cache(maxsize=1)
def configs() -> tuple[dict[str, Any], ...]:
    folder = ROOT / "costmodel" / "models"
    return tuple(
        json.loads(path.read_text())
        for path in sorted(folder.rglob("*.json"))
        if "model_type" in path.read_text()
    )


#: What a processor's files say, all families together: each reads its own.
_PROCESSOR = {
    "patch_size": 16, "merge_size": 2, "temporal_patch_size": 2, "min_pixels": 3136,
    "max_pixels": 1003520, "size": {"shortest_edge": 65536, "longest_edge": 2048},
    "max_image_size": {"longest_edge": 512}, "do_resize": True, "do_image_splitting": True,
    "crop_to_patches": True, "min_patches": 1, "max_patches": 12, "do_pan_and_scan": True,
    "pan_and_scan_min_crop_size": 256, "pan_and_scan_max_num_crops": 4,
    "pan_and_scan_min_ratio_to_activate": 1.2,
}  # fmt: skip


def _config_case(random: Random, folder: Path) -> Path:
    path, document = folder / "config.json", random.choice(configs())
    if random.random() < 0.7:
        return _write(random, path, document)
    path.write_text(json.dumps(document))
    for name in ("preprocessor_config", "video_preprocessor_config"):
        _write(random, folder / f"{name}.json", _PROCESSOR)
    if random.random() < 0.3:
        parts = {"image_seq_length": 256, "image_processor": _PROCESSOR}
        _write(random, folder / "processor_config.json", parts)
    return path


def _config(path: Path) -> Any:
    model = load_model(path)
    answer = estimate(model, A100, output_tokens=2).to_dict()
    if model.vision is not None:
        estimate(model, A100, image_size="720p").to_dict()
    return answer


@lru_cache(maxsize=1)
def _calibrations() -> tuple[dict[str, Any], ...]:
    folder = ROOT / "costmodel" / "calibration" / "data"
    found = (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
    return tuple(sorted(found, key=lambda each: len(json.dumps(each)))[:3])


def _calibration_case(random: Random, folder: Path) -> Path:
    return _write(random, folder / "calibration.json", random.choice(_calibrations()))


def _calibration(path: Path) -> Any:
    found = Calibration.load(path)
    device = found.hardware_id or A100
    return estimate("llava-1.5-7b", device, calibration=path, output_tokens=2).to_dict()


def _device_case(random: Random, folder: Path) -> Path:
    source = random.choice(sorted((ROOT / "hardware_specs" / "data").glob("*.yaml")))
    path = folder / source.name
    text = source.read_text()
    if random.random() < 0.6:
        lines = text.splitlines()
        at = random.randrange(len(lines))
        key, colon, _ = lines[at].partition(":")
        value = random.choice(
            ("-1", "0", ".nan", ".inf", "1" * 5000, "[]", "{}", "x", '"\\e[2J"', "!!python/object:os.f x",
             "&a [*a]", "1e400", "2026-13-99", "", "[" * 300, "'[red]x[/red]'")
        )  # fmt: skip
        lines[at] = random.choice((f"{key}{colon} {value}", "", lines[at] * 2, f"  {lines[at]}"))
        path.write_text("\n".join(lines))
    else:
        path.write_bytes(spoilt_bytes(random, text.encode()))
    return path


def _device(path: Path) -> Any:
    return estimate("llava-1.5-7b", load_hardware(path)).to_dict()


@lru_cache(maxsize=1)
def _table() -> pd.DataFrame:
    """Ops as the law prices them, just enough for a fit."""
    law = Calibration.load(A100)
    shapes = [
        (m, n, 4096)
        for m in (1, 16, 64, 96, 128, 256, 576, 1000, 2048)
        for n in (512, 1024, 4096, 11008)
    ]
    return pd.DataFrame(
        [
            {"dtype": "bf16", "m": m, "n": n, "k": k,
             "time_s": float(law.op_time_s("gemm", dtype="bf16", m=m, n=n, k=k))}
            for m, n, k in shapes
        ]
    )  # fmt: skip


def _table_case(random: Random, folder: Path) -> Path:
    # A whole table takes seconds to fit: most are too short to be fitted, and refused at the end.
    frame = _table().head(36 if random.random() < 0.04 else 9).copy()
    if random.random() < 0.7:
        column = random.choice(list(frame))
        values = (
            "-1",
            "nan",
            "inf",
            "",
            "x",
            "1e400",
            "9" * 400,
            "9" * 5000,
            "\x1b[2J",
            "1e-400",
            "0",
            "true",
        )
        frame[column] = frame[column].astype(object)
        rows = range(len(frame)) if random.random() < 0.4 else [random.randrange(len(frame))]
        bad = random.choice(values)
        for row in rows:
            frame.loc[row, column] = bad
    if random.random() < 0.3:
        frame = frame.rename(
            columns={random.choice(list(frame)): random.choice(("x", "device", "bytes", ""))}
        )
    if random.random() < 0.5:
        path = folder / "ops.csv"
        data = frame.to_csv(index=False).encode()
    else:
        path = folder / "ops.parquet"
        buffer = io.BytesIO()
        # A column has one type here: all texts, or the numbers as they were.
        (frame.astype(str) if random.random() < 0.5 else _table().head(9)).to_parquet(buffer)
        data = buffer.getvalue()
    path.write_bytes(spoilt_bytes(random, data) if random.random() < 0.6 else data)
    return path


def _table_run(path: Path) -> Any:
    found = fit_calibration(str(path), A100, resamples=2, curves=False)
    return [
        {name: value.value for name, value in each.parameters.items()}
        for each in found.classes.values()
    ]


@lru_cache(maxsize=1)
def records() -> tuple[dict[str, Any], ...]:
    text = (ROOT / "measurements" / "amd-epyc-2026-11-20" / "sweep.jsonl").read_text()
    documents = [json.loads(line) for line in text.splitlines()[:4]]
    for document in documents:
        # A processor has no data sheet here: the runs stand as an A100's, which they need not be like.
        document["environment"] |= {
            "device_name": "NVIDIA A100-SXM4-80GB",
            "device_memory_bytes": 85_094_825_984,
            "sm_count": 108,
        }
        document["configuration"]["device"] = "cuda"
    return tuple(documents)


def _records_case(random: Random, folder: Path) -> Path:
    home = folder / "records"
    home.mkdir(exist_ok=True)
    good = random.choice(records())
    (home / "good.json").write_text(json.dumps(good))
    document = random.choice(records())
    if random.random() < 0.7:
        _write(random, home / "bad.json", document)
    else:
        lines = [dumped(spoilt(random, document)) for _ in range(2)]
        data = "\n".join(lines).encode("utf-8", errors="surrogatepass")
        (home / "bad.jsonl").write_bytes(spoilt_bytes(random, data))
    return home


def _records(home: Path) -> Any:
    table = load_measurements(home)
    numbers = table.select_dtypes("number")
    # What was not measured is empty; infinity is what no clock can read.
    assert not numbers.isin([float("inf"), float("-inf")]).any().any(), "infinity in a record"
    result = reconcile(home)
    return json.loads(json.dumps(result.to_dict(), allow_nan=False))["summary"]


@lru_cache(maxsize=1)
def _pictures() -> tuple[tuple[str, bytes], ...]:
    from PIL import Image

    image = Image.radial_gradient("L").resize((24, 16)).convert("RGB")
    found = []
    for name in (
        "PNG",
        "JPEG",
        "GIF",
        "BMP",
        "TIFF",
        "WEBP",
        "PPM",
        "TGA",
        "ICO",
        "PCX",
        "JPEG2000",
    ):
        buffer = io.BytesIO()
        try:
            image.save(buffer, name)
        except (OSError, KeyError):
            continue  # this build of Pillow lacks the codec
        found.append((name.lower(), buffer.getvalue()))
    return tuple(found)


def _picture_case(random: Random, folder: Path) -> Path:
    name, data = random.choice(_pictures())
    path = folder / f"picture.{name}"
    path.write_bytes(spoilt_bytes(random, data) if random.random() < 0.95 else data)
    return path


def _picture(path: Path) -> Any:
    # The picture is opened before the model is looked for, so a whole one ends at the model.
    try:
        return called(["generate", "/nosuch/model", "--image", str(path), "--prompt", "x"])
    except InvalidInputError as error:
        if "/nosuch/model" not in str(error):
            raise
    return None


_PRINTED = (
    "# hardware: V100\n# stated_text: 40\nmethod,model,visual_full,frames,schedule,quantity,unit,printed\n"
    "Vanilla,llava-1.5-7b,576,1,0:V,prefill_flops,T,8.5\nZip,llava-1.5-7b,576,1,0:V;2:0.101V,kv_cache,MB,64.0\n",
    "| Method | Model | Keep | K | FLOPs (T) | Latency (ms) |\n|---|---|---|---|---|---|\n"
    "| Vanilla | llava-1.5-7b | | | 8.5 (100%) | 55 |\n"
    "| FastV | llava-1.5-7b | 50% | 3 | 4.9T / 58% | 30 |\n",
    "\\begin{tabular}{lcc}\nModel & Tokens & TFLOPs & Throughput (tokens/s) \\\\ \\hline\n"
    "llava-1.5-7b & 576 & \\textbf{8.5} & 40 \\\\\n\\multicolumn{4}{c}{Retain 64 tokens} \\\\\n"
    "llava-1.5-7b & 64 & 1.8 & 41\n\\end{tabular}\n",
)


def _printed_case(random: Random, folder: Path) -> Path:
    text = random.choice(_PRINTED)
    for _ in range(random.randrange(4)):
        numbers = re.findall(r"\d[\d.]*|[A-Z][a-z]+", text)
        worse = (
            *(
                "9" * 400,
                "9" * 5000,
                "-1",
                "0",
                "0.0",
                "1e400",
                "nan",
                "",
                "%",
                "\x1b[2J",
                "&",
                "|",
            ),
            *("0:V;2:0.1V", "mean:64", "unknown", "12.5%", "\u0663", "llama-2-7b", "INT4", "1.2.3"),
            "KV cache (MB)",
        )
        text = text.replace(random.choice(numbers), random.choice(worse), random.choice((1, 1, 9)))
    path = folder / "table.txt"
    data = text.encode("utf-8", errors="surrogatepass")
    path.write_bytes(spoilt_bytes(random, data) if random.random() < 0.4 else data)
    return path


def _printed(path: Path) -> Any:
    return audit(path, model="llava-1.5-7b", copies=3).to_dict()


DOORS = (
    Door("config.json", sometimes_odd(_config_case), _config),
    Door("calibration", sometimes_odd(_calibration_case), _calibration),
    Door("device YAML", sometimes_odd(_device_case), _device),
    Door("op tables", sometimes_odd(_table_case), _table_run),
    Door("records", sometimes_odd(_records_case), _records),
    Door("pictures", sometimes_odd(_picture_case), _picture),
    Door("published tables", sometimes_odd(_printed_case), _printed, heavy=10),
)
