"""Profiler passes of a campaign: kernel time by op for each configuration, beside its records.

A pass is never a timed run. It is made once per configuration, in eager mode (a replayed graph has no
modules to attribute to), and kept as `<configuration>_ops.json`, with the Chrome trace as
`<configuration>_trace.json.gz` when it is asked for. What is there already is not run again.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from costmodel.models import load_model
from hardware_specs.files.writing import prepare_folder
from profiling.devices.device import open_device
from profiling.instruments.environment import describe_environment
from profiling.instruments.nvml import open_monitor
from profiling.measuring.planning import check_configurations, model_key
from profiling.measuring.point import is_out_of_memory, release_memory
from profiling.records.model_names import carried_config, public_name
from profiling.subject.execution import Execution
from profiling.subject.models import build_model
from profiling.tracing.kernels import op_table, trace_run
from profiling.tracing.op_profile import OpProfile, OpRecord, write_op_profile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from profiling.records.measurement import Configuration


def run_kernel_passes(
    configurations: Sequence[Configuration],
    folder: str | Path,
    *,
    traces: bool = False,
    weights: str = "random",
    seed: int = 0,
) -> Iterator[tuple[Configuration, Path | None]]:
    """Profile every configuration without a pass and yield each file; None where memory ran out.

    Args:
        configurations: other modes than eager are left out.
        folder: receives the files.
        traces: keep the Chrome traces too.
        weights: `random` or `real`.
        seed: fixes the random weights.

    Raises:
        OutputError: the folder cannot be written.
        VlmRooflineError: the model cannot be built.
    """
    check_configurations(configurations)
    target = prepare_folder(folder)
    todo = [
        configuration
        for configuration in dict.fromkeys(configurations)
        if configuration.mode == "eager" and not (target / _file_name(configuration)).exists()
    ]
    for _, group in itertools.groupby(todo, key=model_key):
        members = list(group)
        first = members[0]
        model = build_model(
            first.model, dtype=first.dtype, device=first.device, weights=weights,
            attention=first.attention, seed=seed,
        )  # fmt: skip
        shape = load_model(first.model)
        environment = describe_environment(first.device, open_monitor(first.device))
        for configuration in members:
            trace = target / f"{configuration.key}_trace.json.gz" if traces else None
            try:
                execution = Execution(model, shape, configuration)
                profile = profile_kernels(execution, environment, trace)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                release_memory(configuration.device)
                yield configuration, None
                continue
            yield configuration, write_op_profile(profile, target)
        del model
        release_memory(first.device)


def profile_kernels(
    execution: Execution, environment: Mapping[str, Any], trace: Path | None = None
) -> OpProfile:
    """Run one repetition under the profiler and return its device time by op.

    Args:
        execution: a model with its inputs, not yet made ready.
        environment: what describes software and device in the record.
        trace: where to keep the Chrome trace.
    """
    device = open_device(execution.configuration.device)
    with device.current(), execution.ready():
        tokens = execution.count_tokens()
        table = op_table(trace_run(execution, trace))
    rows = (
        OpRecord(
            str(row["stage"]), str(row["name"]), str(row["op_class"]), int(row["kernels"]),
            float(row["time_s"]),
        )
        for row in table.to_dict("records")
    )  # fmt: skip
    now = datetime.now(UTC).isoformat(timespec="seconds")
    configuration = execution.configuration
    return OpProfile(
        replace(configuration, model=public_name(configuration.model)), tokens, tuple(rows),
        environment, now, carried_config(configuration.model),
    )  # fmt: skip


def _file_name(configuration: Configuration) -> str:
    return f"{configuration.key}_ops.json"
