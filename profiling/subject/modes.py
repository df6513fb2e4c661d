"""Execution modes of the language model: op by op, as one CUDA graph, or compiled.

Both other modes replace `forward` of the language model alone and put it back afterwards, so hooks,
tower, projector and head stay as they are and every mode is timed by the same marks.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import UnsupportedError
from profiling.devices.device import open_device
from profiling.subject.execution import cache_lengths, fork_cache
from profiling.subject.library_workarounds import capture_is_no_tracing
from token_reduction.caches import cache_in, cache_keyword, cache_of, set_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from profiling.devices.interface import GraphMaker, Replayable
    from profiling.subject.stages import Anatomy


@contextmanager
def applied_mode(
    mode: str,
    parts: Anatomy,
    device: str,
    *,
    graphs: GraphMaker | None = None,
    backend: str = "inductor",
) -> Iterator[None]:
    """Run the language model in a mode inside the block.

    Args:
        mode: `eager`, `cuda-graph` or `compile`.
        parts: the model's parts.
        device: where it runs.
        graphs: what captures graphs; the device's own when None.
        backend: backend of `torch.compile`.

    Raises:
        UnsupportedError: CUDA graphs asked of a CPU, or of a method that cannot be captured.
    """
    if mode == "eager":
        yield
        return
    language: Any = parts.language
    original = language.forward
    if mode == "compile":
        import torch

        # A new length is a new graph: dynamic shapes would time another, slower kernel.
        language.forward = torch.compile(original, dynamic=False, backend=backend)
    else:
        language.forward = GraphedForward(original, graphs or open_device(device).graphs())
    try:
        yield
    finally:
        # The replacement was set on the instance; taking it away uncovers the class's own.
        del language.forward
        if mode == "compile":
            torch._dynamo.reset()


@dataclass(slots=True)
class _Captured:
    graph: Replayable
    inputs: dict[str, torch.Tensor]
    output: Any
    #: The cache as it was right after the capture; later steps grow copies of it.
    cache: Any


@dataclass(slots=True)
class GraphedForward:
    """A language model's forward that captures each shape once and replays it afterwards.

    The key is the input's shape with the cache's lengths: a decode step at another length is
    another graph. A captured decode step reads the cache where the previous graph left it, which is
    the same memory at every replay, so a prefill and its steps replay as a chain.
    """

    original: Callable[..., Any]
    graphs: GraphMaker
    _captured: dict[tuple[Any, ...], _Captured] = field(default_factory=dict)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Replay the graph of this shape, capturing it first if it is new."""
        import torch

        if args or kwargs.get("inputs_embeds") is None or kwargs.get("attention_mask") is not None:
            raise UnsupportedError(
                "a captured language model takes embeddings without a mask; use mode eager"
            )
        inputs = {name: value for name, value in kwargs.items() if isinstance(value, torch.Tensor)}
        rest = {name: value for name, value in kwargs.items() if name not in inputs}
        cache = cache_in(rest)
        rest.pop(cache_keyword(), None)
        shapes = tuple((name, tuple(value.shape)) for name, value in sorted(inputs.items()))
        key = (shapes, cache_lengths(cache))
        entry = self._captured.get(key)
        if entry is None:
            entry = self._capture(inputs, cache, rest)
            self._captured[key] = entry
        for name, value in inputs.items():
            entry.inputs[name].copy_(value)
        entry.graph.replay()
        output = entry.output
        set_cache(output, fork_cache(entry.cache))
        return output

    def _capture(
        self, inputs: dict[str, torch.Tensor], cache: Any, rest: dict[str, Any]
    ) -> _Captured:
        static = {name: value.clone() for name, value in inputs.items()}
        start = cache if cache is not None else self._empty_cache(static, rest)

        def work() -> Any:
            # Every run grows its own copy, so that warm-up leaves the lengths alone.
            return self.original(**static, **{cache_keyword(): fork_cache(start)}, **rest)

        with capture_is_no_tracing():
            graph, output = self.graphs.capture(work)
        return _Captured(graph, static, output, fork_cache(cache_of(output)))

    def _empty_cache(self, inputs: dict[str, torch.Tensor], rest: dict[str, Any]) -> Any:
        """Return a cache of length 0 whose layers exist.

        Making them inside a capture would copy from the host, which a capture forbids.
        """
        cache = fork_cache(cache_of(self.original(**inputs, **rest)))
        for layer in cache.layers:
            # Copied, because a slice of no rows would keep the whole cache of the first run alive.
            layer.keys = layer.keys[..., :0, :].clone()
            layer.values = layer.values[..., :0, :].clone()
        return cache
