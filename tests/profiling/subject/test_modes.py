"""CUDA graphs with the capture simulated: a replay recomputes into the captured tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from hardware_specs.errors import UnsupportedError
from profiling.subject.execution import Execution, cache_lengths
from profiling.subject.modes import GraphedForward, applied_mode
from profiling.subject.stages import anatomy
from token_reduction.caches import cache_of

if TYPE_CHECKING:
    from collections.abc import Callable


class SimulatedGraphs:
    """Capture by remembering the work; replay by doing it again into the same outputs."""

    def __init__(self) -> None:
        self.captures = 0
        self.replays = 0

    def capture(self, work: Callable[[], Any]) -> tuple[Any, Any]:
        self.captures += 1
        work()
        output = work()
        held = [output.last_hidden_state, *_cache_tensors(output)]
        graphs = self

        class Graph:
            def replay(self) -> None:
                graphs.replays += 1
                fresh = work()
                for old, new in zip(
                    held, [fresh.last_hidden_state, *_cache_tensors(fresh)], strict=True
                ):
                    old.copy_(new)

        return Graph(), output


def _cache_tensors(output: Any) -> list[torch.Tensor]:
    return [tensor for layer in cache_of(output).layers for tensor in (layer.keys, layer.values)]


def _logits(execution: Execution) -> list[torch.Tensor]:
    output = execution.first_logits()
    logits = [output.logits.clone()]
    for _ in range(execution.configuration.output_tokens):
        output = execution.decode(output)
        logits.append(output.logits.clone())
    return logits


def test_replayed_prefill_and_decode_give_the_eager_logits(
    tiny: Any, tiny_shape: Any, configure: Any
) -> None:
    execution = Execution(
        tiny, tiny_shape, configure(visual_tokens=5, output_tokens=3, batch_size=2)
    )
    graphs = SimulatedGraphs()
    with execution.ready():
        eager = _logits(execution)
        with applied_mode("cuda-graph", execution.parts, "cuda", graphs=graphs):
            captured = _logits(execution)
            replayed = _logits(execution)
            assert graphs.captures == 4  # one prefill and three cache lengths
            # New pixels must come out as themselves, not as what was captured.
            assert execution.visual is not None
            execution.visual.arguments["pixel_values"].mul_(-1.0)
            other = _logits(execution)
            execution.visual.arguments["pixel_values"].mul_(-1.0)
        after = _logits(execution)
    assert graphs.captures == 4
    assert graphs.replays == 12
    for got in (captured, replayed, after):
        torch.testing.assert_close(got, eager)
    assert not torch.allclose(other[0], eager[0])


def test_a_replay_hands_out_a_cache_of_its_own(tiny: Any, tiny_shape: Any, configure: Any) -> None:
    execution = Execution(tiny, tiny_shape, configure(visual_tokens=5))
    with (
        execution.ready(),
        applied_mode("cuda-graph", execution.parts, "cuda", graphs=SimulatedGraphs()),
    ):
        first = execution.first_logits()
        execution.decode(first)
        again = execution.first_logits()
        assert cache_lengths(cache_of(again)) == (12, 12)


def test_an_empty_cache_holds_no_memory_of_the_run_that_made_it(
    tiny: Any, tiny_shape: Any, configure: Any
) -> None:
    held = []

    class Watching(SimulatedGraphs):
        def capture(self, work: Callable[[], Any]) -> tuple[Any, Any]:
            (start,) = (
                cell.cell_contents
                for cell in work.__closure__ or ()
                if hasattr(cell.cell_contents, "layers") and not callable(cell.cell_contents)
            )
            held.extend(layer.keys.untyped_storage().nbytes() for layer in start.layers)
            return super().capture(work)

    execution = Execution(tiny, tiny_shape, configure(visual_tokens=5))
    with (
        execution.ready(),
        applied_mode("cuda-graph", execution.parts, "cuda", graphs=Watching()),
    ):
        execution.first_logits()
    assert held == [0, 0]


def test_the_forward_is_put_back(tiny: Any) -> None:
    parts = anatomy(tiny)
    with (  # noqa: PT012
        pytest.raises(ZeroDivisionError),
        applied_mode("cuda-graph", parts, "cuda", graphs=SimulatedGraphs()),
    ):
        assert isinstance(parts.language.forward, GraphedForward)
        raise ZeroDivisionError
    assert "forward" not in vars(parts.language)


def test_a_masked_call_is_not_captured(tiny: Any) -> None:
    parts = anatomy(tiny)
    with applied_mode("cuda-graph", parts, "cuda", graphs=SimulatedGraphs()), torch.no_grad():
        ids = torch.ones(1, 4, dtype=torch.long)
        with pytest.raises(UnsupportedError, match="without a mask"):
            tiny(input_ids=ids, attention_mask=torch.ones_like(ids))


def test_graphs_on_a_cpu_are_refused(tiny: Any) -> None:
    with (
        pytest.raises(UnsupportedError, match="needs a CUDA device"),
        applied_mode("cuda-graph", anatomy(tiny), "cpu"),
    ):
        pass


# torch warns so on the first release of Python 3.13 alone.
@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")
def test_compile_runs_the_language_model_through_the_compiler(
    tiny: Any, tiny_shape: Any, configure: Any
) -> None:
    execution = Execution(tiny, tiny_shape, configure(visual_tokens=5))
    with execution.ready():
        eager = _logits(execution)
        with applied_mode("compile", execution.parts, "cpu", backend="eager"):
            compiled = _logits(execution)
    torch.testing.assert_close(compiled, eager)
    assert "forward" not in vars(execution.parts.language)
