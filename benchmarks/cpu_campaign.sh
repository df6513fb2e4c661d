#!/usr/bin/env bash
# Measure this machine's CPU: micro-benchmarks, and a size-reduced LLaVA-1.5-7B over visual tokens and
# methods, on one thread.
#
#   benchmarks/cpu_campaign.sh [FOLDER]      results go to FOLDER, else to $OUT, else to ./cpu-campaign
#   SEVEN_B=1 benchmarks/cpu_campaign.sh     also runs the real 7B shape in bf16 at two token counts
#                                            (14.2 GB of memory, about ten minutes)
set -euo pipefail
cd "$(dirname "$0")/.."

out="${1:-${OUT:-cpu-campaign}}"
python="${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"
mkdir -p "$out"
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$PWD" PYTHONUNBUFFERED=1
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

# The reduced shape runs in float32, which every CPU has; the real one in bfloat16, to fit.
cli=("$python" -m vlm_roofline profile --device cpu --max-foreign-load "${QUIET:-0.5}")
reduced=(llava-1.5-7b --scale layers=4,width=1/8 --dtype fp32 --noise 0.03 --max-time 6 --rounds 3)

"${cli[@]}" "${reduced[@]}" --out "$out/sweep" \
    --visual-tokens 576,512,416,384,288,192,144,128,64,36,16,1
"${cli[@]}" "${reduced[@]}" --out "$out/methods" \
    --method none,prumerge,prumerge+,divprune,fastv,sequential,spatial,m3 --keep default
"${cli[@]}" "${reduced[@]}" --out "$out/decode" --visual-tokens 576,64 --output-tokens 8 --kernels
"$python" benchmarks/measure_ops.py --device cpu --out "$out/ops.json" --dtypes fp32,bf16

if [ -n "${SEVEN_B:-}" ]; then
    "${cli[@]}" llava-1.5-7b --dtype bf16 --out "$out/seven-b" --rounds 1 --max-time 60 \
        --visual-tokens 576,64
fi
"$python" -m vlm_roofline measurements "$out" || true
