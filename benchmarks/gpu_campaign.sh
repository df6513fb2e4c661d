#!/usr/bin/env bash
# Measure LLaVA-1.5-7B (random bf16 weights) on one CUDA GPU in at most ten minutes.
#
#   benchmarks/gpu_campaign.sh [FOLDER]      results go to FOLDER, else to $OUT, else to ./gpu-campaign
#
# Environment and NVML capabilities, ceilings and micro-benchmarks, a sweep over visual tokens (eager
# and CUDA graphs, batch 1 and 8), every reduction method at its published setting, decode steps,
# energy windows, one profiler pass. Seven files, none over 16 MiB. Clocks and device settings are
# left as they are.
set -euo pipefail
cd "$(dirname "$0")/.."

out="${1:-${OUT:-gpu-campaign}}"
python="${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"
mkdir -p "$out"
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$PWD" PYTHONUNBUFFERED=1
# Weights are random: nothing has to be fetched.
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error

if ! "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())'; then
    echo "error: torch sees no CUDA device; benchmarks/cpu_campaign.sh measures this machine's CPU" >&2
    exit 2
fi

# 560 s of measuring leave room for imports and the last point; `timeout` is the backstop.
status=0
timeout --signal=INT 595 "$python" benchmarks/measure_device.py \
    --out "$out" --device cuda --model llava-1.5-7b --budget "${BUDGET:-560}" \
    2> >(tee "$out/log.txt" >&2) || status=$?

ls -l "$out"
too_large=$(find "$out" -type f -size +16M)
if [ -n "$too_large" ]; then
    echo "error: over 16 MiB: $too_large" >&2
    exit 1
fi
exit "$status"
