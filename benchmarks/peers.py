"""Other tools on the same work, each in an environment of its own, in one table.

    python benchmarks/peers.py FOLDER [--record docs/peers.md]

Llama-2-7B, a prompt of 616 tokens, 64 tokens out, one A100 SXM 80 GB, 16-bit: what a LLaVA-1.5 prompt is to
its language model. Installs the pinned releases from PyPI below FOLDER, once.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import timeit
from pathlib import Path
from typing import Any

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


def asked(name: str, folder: Path) -> dict[str, Any]:
    """Install a tool where it is not yet, and return what it says; a failure is said in words."""
    packages, script, _ = PEERS[name]
    python = folder / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    ran = subprocess.run([str(python), "-c", script], capture_output=True, text=True, timeout=600)
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
    for name, (packages, _, words) in PEERS.items():
        found = asked(name, folder)
        if "seen" in found:
            seen = (
                "\nQwen3-VL-8B in BF16, one picture of 1024 x 1024 pixels, 40 text tokens, 64 tokens out, by "
                f"aiconfigurator's runtimes and by us:\n\n{pictures(found['seen'])}"
            )
        rows.append((packages[0].replace("==", " "), *cells(found), found.get("failed", words)))
    rows.append(("vlm-roofline, ideal", *cells(ours("none")), "datasheet peaks"))
    rows.append(("vlm-roofline", *cells(ours("auto")), "fitted to measured kernels of this device"))
    return f"{WrittenTable('', heads, tuple(rows)).markdown()}\n{seen}".rstrip()


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
