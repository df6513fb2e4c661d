"""Other tools on the same work, each in an environment of its own, in one table.

    python benchmarks/peers.py FOLDER [--record docs/peers.md]

Llama-2-7B, a prompt of 616 tokens, 64 tokens out, one A100 SXM 80 GB, 16-bit: what a LLaVA-1.5 prompt is to
its language model. Then LLaVA-1.5-7B and Qwen3-VL-8B with a picture, where a tool takes them. Installs the
pinned releases from PyPI below FOLDER, once; the tools that run a model take a quarter of an hour.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import timeit
from pathlib import Path
from typing import Any

import costmodel
from costmodel import estimate
from costmodel.written_tables import WrittenTable

PROMPT, OUTPUT = 616, 64
DEVICE = "nvidia-a100-sxm4-80gb"

_LLM_ANALYSIS = f"""
import json, timeit
from llm_analysis.analysis import infer
run = lambda: infer(model_name="NousResearch_Llama-2-7b-hf", gpu_name="a100-sxm-80gb", log_level="ERROR",
                    seq_len={PROMPT}, num_tokens_to_generate={OUTPUT})
found = run()
print(json.dumps(dict(
    prefill_flops=found["prefill_num_flops_fwd_total"], prefill_s=found["prefill_latency"],
    tpot_s=found["decode_latency"], weight_bytes=found["weight_memory_per_gpu"],
    kv_cache_bytes=found["kv_cache_memory_per_gpu"], seconds=timeit.timeit(run, number=20) / 20)))
"""
_GENZ = f"""
import json, timeit
from GenZ import prefill_moddeling, decode_moddeling
given = dict(model="meta-llama/Llama-2-7b", batch_size=1, input_tokens={PROMPT}, bits="bf16",
             system_name="A100_80GB_GPU")
run = lambda: (prefill_moddeling(**given), decode_moddeling(**given, output_tokens={OUTPUT}))
prefill, decode = run()
# The rows between "Repeat" and "End Repeat" are one layer.
inside, flops = 1, 0.0
for name, mflop in zip(prefill["model_df"]["Layer Name"], prefill["model_df"]["Num ops (MFLOP)"]):
    inside = {{"Repeat": 32, "End Repeat": 1}}.get(str(name).strip(), inside)
    flops += inside * 1e6 * float(mflop)
print(json.dumps(dict(
    prefill_flops=flops, prefill_s=float(prefill["Latency"]) / 1e3,
    tpot_s=float(decode["Latency"]) / 1e3, seconds=timeit.timeit(run, number=5) / 5)))
"""
# It runs a model on real numbers: one layer and two, and the other thirty by the difference.
_CALFLOPS = f"""
import json, torch, transformers
from calflops import calculate_flops
def flops(layers):
    config = transformers.LlamaConfig(
        vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=layers,
        num_attention_heads=32, use_cache=False)
    model = transformers.LlamaForCausalLM(config).bfloat16().eval()
    words = torch.zeros(1, {PROMPT}, dtype=torch.long)
    return float(calculate_flops(model, kwargs=dict(input_ids=words), print_results=False,
                                 print_detailed=False, output_as_string=False)[0])
one, two = flops(1), flops(2)
print(json.dumps(dict(prefill_flops=one + 31 * (two - one))))
"""
_FVCORE = f"""
import json, timeit, torch, transformers
transformers.logging.set_verbosity_error()
config = transformers.LlamaConfig(
    vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32)
with torch.device("meta"):
    model = transformers.LlamaForCausalLM(config).half().eval()
    words = torch.zeros(1, {PROMPT}, dtype=torch.long)
import logging
from fvcore.nn import FlopCountAnalysis
logging.disable(logging.WARNING)
class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model
    def forward(self, words):
        return self.model(input_ids=words, use_cache=False).logits
def run():
    counted = FlopCountAnalysis(Words(), words)
    return counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
print(json.dumps(dict(prefill_flops=2 * run(), seconds=timeit.timeit(run, number=1))))
"""
#: Our device -> its name there; the runtimes that its measurements are of.
SYSTEMS = {"nvidia-h100-sxm5-80gb": "h100_sxm", "nvidia-h200-sxm-141gb": "h200_sxm"}
RUNTIMES = ("vllm", "trtllm", "sglang")
_AICONFIGURATOR = f"""
import json, os, re, subprocess, sys, tempfile
def run(model, system, backend, *more):
    program = os.path.join(os.path.dirname(sys.executable), "aiconfigurator")
    line = [program, "cli", "estimate", "--no-color", "--model-path", model, "--system", system, "--backend",
            backend, "--estimate-mode", "static", "--batch-size", "1", "--osl", "{OUTPUT + 1}", *more]
    out = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    return [float(re.search(name + r":\\s+([\\d.]+) ms", out)[1]) / 1e3 for name in ("TTFT", "TPOT")]
folder = tempfile.mkdtemp()
config = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=4096, intermediate_size=11008,
    num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32, vocab_size=32000,
    max_position_embeddings=4096, torch_dtype="float16")
json.dump(config, open(os.path.join(folder, "config.json"), "w"))
first, step = run(folder, "a100_sxm", "vllm", "--isl", "{PROMPT}")
picture = ["--isl", "40", "--image-height", "1024", "--image-width", "1024", "--num-images", "1"]
seen = dict((system, dict((backend, run("Qwen/Qwen3-VL-8B-Instruct", system, backend, *picture))
                          for backend in {RUNTIMES})) for system in {tuple(SYSTEMS.values())})
print(json.dumps(dict(prefill_s=first, tpot_s=step, seen=seen)))
"""
#: Model with a picture -> height and width of it; TEXT tokens stand beside it.
MODELS = {"llava-1.5-7b": (336, 336), "qwen3-vl-8b": (1024, 1024)}
TEXT = 40
#: Each script below is given the folder of a model's config.json and its picture's height and width.
_TAKES_CONFIG = f"""
import json, sys
from llm_analysis.analysis import infer
found = infer(model_name=sys.argv[1], gpu_name="a100-sxm-80gb", log_level="ERROR", seq_len={PROMPT},
              num_tokens_to_generate={OUTPUT})
print(json.dumps(dict(flops=found["prefill_num_flops_fwd_total"])))
"""
_TAKES_NAME = f"""
import json, os, sys
from GenZ import prefill_moddeling
name = json.load(open(os.path.join(sys.argv[1], "config.json")))["_name_or_path"]
prefill_moddeling(model=name, batch_size=1, input_tokens={PROMPT}, bits="bf16", system_name="A100_80GB_GPU")
print(json.dumps(dict()))
"""
_LOOKS_UP = f"""
import json, os, subprocess, sys
program = os.path.join(os.path.dirname(sys.executable), "aiconfigurator")
folder, height, width = sys.argv[1:]
line = [program, "cli", "estimate", "--no-color", "--model-path", folder,
        "--system", "h100_sxm", "--backend", "vllm", "--estimate-mode", "static",
        "--batch-size", "1", "--osl", "{OUTPUT + 1}", "--isl", "{TEXT}",
        "--image-height", height, "--image-width", width, "--num-images", "1"]
done = subprocess.run(line, capture_output=True, text=True)
for said in (done.stdout + done.stderr).splitlines():
    if said.startswith("Error: "):
        sys.exit(said.partition(". ")[0])
print(json.dumps(dict(words="times, below")))
"""
# On real numbers: towers and decoders of three and four layers, the rest by the differences.
_RUN = f"""
def model_and_inputs(layers, depth):
    config = transformers.AutoConfig.for_model(**given)
    tower = "depth" if hasattr(config.vision_config, "depth") else "num_hidden_layers"
    whole = config.text_config.num_hidden_layers, getattr(config.vision_config, tower)
    config.text_config.num_hidden_layers, config.text_config.use_cache = layers, False
    setattr(config.vision_config, tower, depth)
    if tower == "depth":
        config.vision_config.deepstack_visual_indexes = [0, 1, 2]
        grid = [side // config.vision_config.patch_size for side in size]
        visual = grid[0] * grid[1] // config.vision_config.spatial_merge_size ** 2
        values = 2 * 3 * config.vision_config.patch_size ** 2
        inputs = dict(image_grid_thw=torch.tensor([[1, *grid]]),
                      pixel_values=torch.zeros(grid[0] * grid[1], values))
    else:
        visual = (size[0] // config.vision_config.patch_size) ** 2
        inputs = dict(pixel_values=torch.zeros(1, 3, *size))
    seen = getattr(config, "image_token_id", None) or config.image_token_index
    words = torch.full((1, visual + {TEXT}), 5)
    words[0, 1 : 1 + visual] = seen
    if tower == "depth":
        words[0, 0] = config.vision_start_token_id
        inputs["mm_token_type_ids"] = (words == seen).int()
    model = transformers.AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16).eval()
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    return whole, model, dict(input_ids=words, **inputs)
import json, os, sys, torch, transformers
transformers.logging.set_verbosity_error()
given = json.load(open(os.path.join(sys.argv[1], "config.json")))
size = [int(side) for side in sys.argv[2:]]
def flops(layers, depth):
    whole, model, inputs = model_and_inputs(layers, depth)
    return whole, count(model, inputs)
(layers, depth), base = flops(3, 3)
more = (layers - 3) * (flops(4, 3)[1] - base) + (depth - 3) * (flops(3, 4)[1] - base)
print(json.dumps(dict(flops=base + more)))
"""
_CALFLOPS_COUNT = """
def count(model, inputs):
    from calflops import calculate_flops
    return float(calculate_flops(model, kwargs=inputs, print_results=False, print_detailed=False,
                                 output_as_string=False)[0])
"""
_FVCORE_COUNT = """
def count(model, inputs):
    from fvcore.nn import FlopCountAnalysis
    import logging
    logging.disable(logging.WARNING)
    class Given(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model
        def forward(self, *values):
            return self.model(**dict(zip(inputs, values)), use_cache=False).logits
    counted = FlopCountAnalysis(Given(), tuple(inputs.values()))
    return 2 * counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
"""
#: Name -> what asks it about a model with a picture.
PICTURED = {
    "llm-analysis": _TAKES_CONFIG,
    "genz-llm": _TAKES_NAME,
    "aiconfigurator": _LOOKS_UP,
    "calflops": _CALFLOPS_COUNT + _RUN,
    "fvcore": _FVCORE_COUNT + _RUN,
}
_TORCH = ("torch==2.13.0", "transformers==5.24.0")
#: Name -> what is installed, the first of it the tool itself; the script; what it counts, in words.
PEERS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "llm-analysis": (
        ("llm-analysis==0.2.2",),
        _LLM_ANALYSIS,
        "datasheet peaks, language models only",
    ),
    "genz-llm": (("genz-llm==0.0.16",), _GENZ, "datasheet peaks, language models only"),
    "aiconfigurator": (
        ("aiconfigurator==0.12.0",),
        _AICONFIGURATOR,
        "measured kernels of vLLM 0.14, looked up",
    ),
    "calflops": (
        ("calflops==0.3.2", *_TORCH, "accelerate"),
        _CALFLOPS,
        "hooks on a model that runs; 30 layers by difference",
    ),
    "fvcore": (
        ("fvcore==0.1.5.post20221221", *_TORCH),
        _FVCORE,
        "a traced graph, multiply-adds doubled",
    ),
}


def asked(name: str, folder: Path, script: str, *given: str) -> dict[str, Any]:
    """Install a tool where it is not yet, and return what it says; a failure is said in words."""
    packages = PEERS[name][0]
    python = folder / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    ran = subprocess.run(
        [str(python), "-c", script, *given], capture_output=True, text=True, timeout=1800
    )
    if ran.returncode:
        return {"failed": (ran.stderr.strip().splitlines() or ["no word"])[-1]}
    return dict(json.loads(ran.stdout.strip().splitlines()[-1]))


def ours(calibration: str) -> dict[str, Any]:
    def run() -> Any:
        return estimate(
            "llama-2-7b", DEVICE, text_tokens=PROMPT, output_tokens=OUTPUT, calibration=calibration
        )

    cost = run()
    return {
        "prefill_flops": cost.stages["prefill"].flops,
        "prefill_s": cost.totals.ttft_s,
        "tpot_s": cost.totals.tpot_s,
        "weight_bytes": cost.memory.weight_bytes,
        "kv_cache_bytes": cost.memory.kv_cache_bytes,
        "seconds": timeit.timeit(run, number=200) / 200,
    }


def cells(found: dict[str, Any]) -> list[str]:
    def text(key: str, scale: float, form: str, unit: str) -> str:
        return "-" if found.get(key) is None else f"{found[key] * scale:{form}} {unit}"

    return [
        text("prefill_flops", 1e-12, ".4f", "T"),
        text("prefill_s", 1e3, ".2f", "ms"),
        text("tpot_s", 1e3, ".3f", "ms"),
        text("weight_bytes", 1e-9, ".3f", "GB"),
        text("kv_cache_bytes", 1e-6, ".1f", "MB"),
        text("seconds", 1e3, ".4g", "ms"),
    ]


def pictures(seen: dict[str, Any]) -> str:
    """Return times of a request with a picture: Qwen3-VL-8B, 1024 x 1024 pixels, 40 text tokens, BF16."""
    rows = []
    for device, system in SYSTEMS.items():
        cost = estimate(
            "qwen3-vl-8b", device, image_size=(1024, 1024), output_tokens=OUTPUT, precision="bf16"
        )
        times = [seen[system][backend] for backend in RUNTIMES]
        times.append([cost.totals.ttft_s, cost.totals.tpot_s])
        cells = (f"{first * 1e3:.1f} + {step * 1e3:.2f}" for first, step in times)
        rows.append((device, *cells, str(cost.inputs["calibration"])))
    heads = ("TTFT + TPOT, ms", "vLLM", "TensorRT-LLM", "SGLang", "ours", "our calibration")
    return WrittenTable("", heads, tuple(rows)).markdown()


def with_pictures(folder: Path) -> str:
    """Return the FLOPs of tower, bridge and prefill as each tool counts them, or why it does not."""
    configs = Path(costmodel.__file__).parent / "models" / "configs"
    for model in MODELS:
        (folder / model).mkdir(exist_ok=True)
        shutil.copy(configs / f"{model}.json", folder / model / "config.json")
    rows = []
    for name, script in PICTURED.items():
        cells = []
        for model, size in MODELS.items():
            found = asked(name, folder, script, str(folder / model), *map(str, size))
            if "failed" in found:
                cells.append(f"does not take it: {found['failed']}")
            else:
                cells.append(found.get("words") or f"{found['flops'] / 1e12:.4f} T")
        rows.append((PEERS[name][0][0].replace("==", " "), *cells))
    for logits, words in (("last", "vlm-roofline"), ("all", "vlm-roofline, --logits all")):
        costs = [
            estimate(model, DEVICE, image_size=size, calibration="none", logits=logits)
            for model, size in MODELS.items()
        ]
        rows.append((words, *(f"{cost.totals.flops / 1e12:.4f} T" for cost in costs)))
    heads = ("FLOPs", *(f"{model}, {h} x {w} pixels" for model, (h, w) in MODELS.items()))
    return WrittenTable("", heads, tuple(rows)).markdown()


def table(folder: Path) -> str:
    heads = (
        "tool",
        "prefill FLOPs",
        "prefill",
        "per token",
        "weights",
        "KV cache",
        "one estimate",
        "what it is",
    )
    rows, seen = [], ""
    for name, (packages, script, words) in PEERS.items():
        found = asked(name, folder, script)
        if "seen" in found:
            seen = (
                "\nQwen3-VL-8B in BF16, one picture of 1024 x 1024 pixels, 40 text tokens, 64 tokens out, by "
                f"aiconfigurator's runtimes and by us:\n\n{pictures(found['seen'])}"
            )
        rows.append((packages[0].replace("==", " "), *cells(found), found.get("failed", words)))
    rows.append(("vlm-roofline, ideal", *cells(ours("none")), "datasheet peaks"))
    rows.append(("vlm-roofline", *cells(ours("auto")), "fitted to measured kernels of this device"))
    text = WrittenTable("", heads, tuple(rows)).markdown()
    counted = f"A picture and {TEXT} text tokens, until the first token:\n\n{with_pictures(folder)}"
    return f"{text}\n\n{counted}\n{seen}".rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--record", type=Path, help="the page whose table is written again")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    text = table(given.folder)
    print(text)
    if given.record is not None:
        page = given.record.read_text(encoding="utf-8")
        before, _, rest = page.partition("<!-- table -->\n")
        _, _, after = rest.partition("<!-- end -->")
        stamp = f"Run on {datetime.date.today().isoformat()}, Python {sys.version.split()[0]}.\n"
        page = f"{before}<!-- table -->\n{stamp}\n{text}\n<!-- end -->{after}"
        given.record.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
