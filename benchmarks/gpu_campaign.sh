#!/usr/bin/env bash
# Measure a model on one CUDA GPU, in steps that may be killed and continued in the same folder.
#
#   benchmarks/gpu_campaign.sh smoke [FOLDER]   four minutes: does every path run, and measure what it says
#   benchmarks/gpu_campaign.sh core  [FOLDER]   eight minutes: what predictions are held against, best first
#   benchmarks/gpu_campaign.sh more  [FOLDER]   quantised weights, larger batches, further rounds
#
# Results go to FOLDER, else to $OUT, else to ./gpu-campaign; `profiling.device_campaign` lists the files.
# BUDGET sets the seconds of a step, starting Python included; MODEL and DEVICE what runs where. Clocks
# and device settings are left as they are. Without a GPU it can be rehearsed on the CPU:
#   DEVICE=cpu MODEL='llava-1.5-7b@layers=2,width=1/16' BUDGET=60 benchmarks/gpu_campaign.sh smoke out
set -euo pipefail
started=$(date +%s)
cd "$(dirname "$0")/.."

step="${1:?smoke, core or more}"
out="${2:-${OUT:-gpu-campaign}}"
python="${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"
mkdir -p "$out"
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$PWD" PYTHONUNBUFFERED=1
# Weights are random: nothing has to be fetched.
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error

# Said in the first second instead of after the first minutes.
missing=$("$python" -c 'from importlib.util import find_spec as f
print(*(n for n in ("torch", "transformers", "pydantic", "safetensors", "yaml") if f(n) is None))')
if [ -n "$missing" ]; then
    echo "error: this Python lacks: $missing; install vlm-roofline[profile] with its dependencies" >&2
    exit 2
fi

status=0
# The step ends by its own budget; `timeout` is the backstop, and what was measured is kept either way.
timeout --signal=INT "$((${BUDGET:-480} + 60))" "$python" -m vlm_roofline campaign "$step" --out "$out" \
    --device "${DEVICE:-cuda}" --model "${MODEL:-llava-1.5-7b}" ${BUDGET:+--budget "$BUDGET"} \
    --started "$started" 2> >(tee -a "$out/log.txt" >&2) || status=$?
exit "$status"
