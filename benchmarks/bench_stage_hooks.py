"""What observing stages costs: the same run with and without its hooks, in pairs.

Host speed drifts by more than hooks cost, so every repetition runs both ways one after the other, in
an order that alternates, and the ratio is taken pair by pair. The model is launch-bound on purpose:
narrow layers, where the host's work is all there is and hooks weigh most. Four hooked modules are
what a measurement uses; hooks on every leaf show why it uses no more.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from costmodel.models import load_model
from profiling.devices.device import clock_for
from profiling.instruments.recorder import Recorder
from profiling.records.measurement import Configuration
from profiling.subject.execution import Execution
from profiling.subject.models import build_model

MODEL = "llava-1.5-7b@layers=8,width=1/16"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PAIRS = 300
#: On a CPU one thread does everything, and its own time leaves other programs out.
now = time.perf_counter if DEVICE == "cuda" else time.thread_time
LIMIT = 0.01


def _execution() -> Execution:
    model = build_model(MODEL, dtype="fp32", device=DEVICE)
    configuration = Configuration(MODEL, "fp32", visual_tokens=1, device=DEVICE)
    return Execution(model, load_model(MODEL), configuration)


def _ratio_interval(ratios: np.ndarray) -> tuple[float, float, float]:
    """Median of the paired ratios with a bootstrapped 95 % interval."""
    generator = np.random.default_rng(0)
    resampled = np.median(generator.choice(ratios, (2000, ratios.size)), axis=1)
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(np.median(ratios)), float(low), float(high)


def _paired(execution: Execution, observe) -> np.ndarray:
    clock = clock_for(DEVICE)

    def timed(observed: bool) -> float:
        # Putting hooks on and taking them off happens once per measurement: outside the time.
        (execution.hooks.attach if observed else execution.hooks.detach)()
        clock.synchronize()
        start = now()
        observe() if observed else execution.run()
        clock.synchronize()
        return now() - start

    for _ in range(10):
        timed(True)
        timed(False)
    ratios = []
    for pair in range(PAIRS):
        first = pair % 2 == 0
        seconds = {first: timed(first), (not first): timed(not first)}
        ratios.append(seconds[True] / seconds[False])
    return np.array(ratios)


def test_four_hooked_modules_cost_under_one_percent(benchmark) -> None:
    torch.set_num_threads(1)
    execution = _execution()
    recorder = Recorder(clock_for(DEVICE))

    def observe() -> None:
        execution.run(recorder)
        recorder.close()
        recorder.clock.synchronize()
        recorder.collect()

    def compare() -> np.ndarray:
        with execution.ready():
            return _paired(execution, observe)

    ratios = benchmark.pedantic(compare, rounds=1)
    middle, low, high = _ratio_interval(ratios)
    benchmark.extra_info |= {"ratio": middle, "low": low, "high": high, "pairs": PAIRS}
    assert low <= 1 + LIMIT, f"hooks cost {100 * (middle - 1):.2f} % ({low:.4f} to {high:.4f})"


def test_hooks_on_every_leaf_for_comparison(benchmark) -> None:
    torch.set_num_threads(1)
    execution = _execution()
    recorder = Recorder(clock_for(DEVICE))
    leaves = [module for module in execution.model.modules() if not list(module.children())]

    def observe() -> None:
        handles = [
            handle
            for leaf in leaves
            for handle in (
                leaf.register_forward_pre_hook(lambda *_: recorder.begin("leaf")),
                leaf.register_forward_hook(lambda *_: recorder.end("leaf")),
            )
        ]
        started.append(now())
        execution.run()
        ended.append(now())
        for handle in handles:
            handle.remove()
        recorder.discard()

    started: list[float] = []
    ended: list[float] = []

    def compare() -> np.ndarray:
        with execution.ready():
            plain = []
            for _ in range(PAIRS // 4):
                observe()
                begin = now()
                execution.run()
                plain.append(now() - begin)
            observed = np.array(ended) - np.array(started)
            return observed / np.array(plain)

    middle, low, high = _ratio_interval(benchmark.pedantic(compare, rounds=1))
    benchmark.extra_info |= {"ratio": middle, "low": low, "high": high, "leaves": len(leaves)}
    assert middle > 1.0
