"""CUDA graphs with the capture simulated: a replay recomputes into the captured tensors."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest
import torch

from hardware_specs.errors import DeviceUnavailableError, UnsupportedError
from profiling.devices.cuda import CudaGraphs
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


class Torch:
    """`torch.cuda` as far as a capture needs it; the first capture ends as a failed one does."""

    class Stream:
        device = "cpu"

        def wait_stream(self, _other: Any) -> None: ...

    def __init__(self, *, ends: int = 1) -> None:
        self.main, self.current, self.fails = self.Stream(), None, ends
        self.open_pools: list[Any] = []
        self.pools = 0

    def current_stream(self) -> Any:
        return self.current or self.main

    def set_stream(self, stream: Any) -> None:
        self.current = None if stream is self.main else stream

    def stream(self, _stream: Any) -> Any:
        return nullcontext()

    def synchronize(self) -> None: ...

    def current_device(self) -> int:
        return 0

    def graph_pool_handle(self) -> int:
        self.pools += 1
        return self.pools

    class CUDAGraph:
        def replay(self) -> None: ...

    @contextmanager
    def graph(self, _graph: Any, pool: Any = None) -> Any:
        self.current = self.Stream()
        self.open_pools.append(pool)
        yield
        # As torch does: ending a capture that was spoilt raises before anything is put back.
        if self.fails:
            self.fails -= 1
            raise RuntimeError("operation failed due to a previous error during capture\nmore")
        self.open_pools.remove(pool)
        self.current = None

    def end_pool(self, _device: int, pool: Any) -> None:
        if pool not in self.open_pools:
            raise RuntimeError("no allocation to this pool")
        self.open_pools.remove(pool)


@pytest.fixture
def unspoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaGraphs, "spoilt", None)


@pytest.mark.usefixtures("unspoilt")
def test_a_failed_capture_is_explained_and_leaves_stream_and_pool_as_they_were() -> None:
    cuda = Torch()
    graphs = CudaGraphs(cuda, cuda.end_pool)
    with pytest.raises(
        UnsupportedError, match=r"cannot be captured.*error during capture; use mode"
    ):
        graphs.capture(lambda: None)
    assert cuda.current_stream() is cuda.main
    assert cuda.open_pools == []
    # The small capture that followed went well, so the next one is tried, in a pool of its own.
    _, output = graphs.capture(lambda: "captured")
    assert output == "captured"
    assert cuda.pools == 2


@pytest.mark.usefixtures("unspoilt")
def test_a_process_that_can_capture_no_more_says_so() -> None:
    cuda = Torch(ends=2)
    with pytest.raises(UnsupportedError):
        CudaGraphs(cuda, cuda.end_pool).capture(lambda: None)
    with pytest.raises(DeviceUnavailableError, match=r"previous error.*start again"):
        CudaGraphs(cuda, cuda.end_pool).capture(lambda: None)


@pytest.mark.usefixtures("unspoilt")
def test_memory_that_runs_out_in_a_capture_is_no_refusal() -> None:
    cuda = Torch(ends=0)
    work = iter([None, None])

    def exhausted() -> None:
        if next(work, "capture") == "capture":
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        CudaGraphs(cuda, cuda.end_pool).capture(exhausted)
    assert cuda.current_stream() is cuda.main
    assert CudaGraphs.spoilt is None


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
