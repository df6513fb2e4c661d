"""The stages of a run, found on the model and observed through hooks on four modules.

Vision tower, projector, language model and head are all that is hooked: four hooks cost nothing
that can be measured, one per layer costs percents, one per leaf up to a sixth of a launch-bound
run. `prefill` runs from the language model's start to the head's end. Token reduction is observed
where it happens, through `token_reduction.observe`; it is never what is left after subtracting.

The stages need not add up to the total: embedding the text and placing the visual tokens happen
between them.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from hardware_specs.errors import UnsupportedError
from profiling.records.measurement import COMMUNICATION, DECODE_COMMUNICATION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn
    from torch.utils.hooks import RemovableHandle

_TOWERS = ("vision_tower", "video_tower", "image_tower", "visual", "vision_model")
#: A merger is a part of its tower.
_PROJECTORS = ("vision_resampler", "multi_modal_projector", "connector", "visual.merger")
#: Stages that what runs tells of itself.
_TOLD = frozenset({"reduction", COMMUNICATION, DECODE_COMMUNICATION})
_LANGUAGES = ("language_model", "text_model")


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The parts of a model that the stages are named after; a text-only model has no vision tower."""

    towers: tuple[nn.Module, ...]
    projectors: tuple[nn.Module, ...]
    language: nn.Module
    head: nn.Module

    @property
    def has_vision(self) -> bool:
        """Return whether there is a vision tower."""
        return bool(self.towers)


def anatomy(model: nn.Module) -> Anatomy:
    """Find the parts of a Hugging Face LLaVA-like or text-only causal model.

    Args:
        model: an instance such as `LlavaForConditionalGeneration` or `LlamaForCausalLM`.

    Raises:
        UnsupportedError: a part is not where this family keeps it.
    """
    base: Any = getattr(model, "model", None)
    head: Any = getattr(model, "lm_head", None)
    if base is None or head is None:
        children = ", ".join(name for name, _ in model.named_children())
        raise UnsupportedError(
            f"{type(model).__name__} has no `model` and `lm_head` (it has: {children}); "
            "give a LLaVA-like model for conditional generation, or a causal language model"
        )
    towers, projectors, languages = (
        tuple(found for name in names if (found := _inside(base, name)) is not None)
        for names in (_TOWERS, _PROJECTORS, _LANGUAGES)
    )
    language = next(iter(languages), None)
    if language is None:
        if towers:
            raise UnsupportedError(
                f"{type(model).__name__} has a vision tower but no `model.language_model`"
            )
        language = base
    return Anatomy(towers, projectors, language, head)


def _inside(base: Any, path: str) -> Any:
    """Return the module at a path, or None."""
    for name in path.split("."):
        base = getattr(base, name, None)
    return base


class StageObserver(Protocol):
    """An observer of the beginnings and ends of stages."""

    def begin(self, stage: str) -> None:
        """Note that a stage begins."""

    def end(self, stage: str) -> None:
        """Note that a stage ends."""


@dataclass(slots=True)
class StageHooks:
    """Hooks on the model's parts that tell one observer at a time; silent while there is none."""

    parts: Anatomy
    observer: StageObserver | None = None
    #: A decode step runs the language model too, and is timed as a whole by who issues it.
    decoding: bool = False
    _handles: list[RemovableHandle] = field(default_factory=list)

    def attach(self) -> None:
        """Attach the hooks, once."""
        if self._handles:
            return
        # A projector inside its tower ends the tower's stage where its own begins.
        inside = {id(part) for tower in self.parts.towers for part in tower.modules()}
        nested = [part for part in self.parts.projectors if id(part) in inside]
        for module in nested:
            self._hook(module, None, "vision", early=True)
        for module in self.parts.towers:
            self._hook(module, "vision", None if nested else "vision")
        for module in self.parts.projectors:
            self._hook(module, "projector", "projector")
        self._hook(self.parts.language, "prefill", None)
        self._hook(self.parts.head, None, "prefill")

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _hook(
        self, module: nn.Module, begins: str | None, ends: str | None, *, early: bool = False
    ) -> None:
        """Tell where a stage begins, and where one ends: after the module, or before it if `early`."""
        if begins is not None:
            stage = begins

            def before(_module: nn.Module, _inputs: Any) -> None:
                if self.observer is not None and not self.decoding:
                    self.observer.begin(stage)

            self._handles.append(module.register_forward_pre_hook(before))
        if ends is not None:
            last = ends

            def after(*_: Any) -> None:
                if self.observer is not None and not self.decoding:
                    self.observer.end(last)

            register = module.register_forward_pre_hook if early else module.register_forward_hook
            self._handles.append(register(after))

    @contextmanager
    def observing(self, observer: StageObserver) -> Iterator[None]:
        """Tell an observer about every stage inside the block.

        The reduction's own begin and end come from `token_reduction.observe`, wherever in the
        model the method sits, and so do those of every collective among several processes.
        """
        previous, self.observer = self.observer, observer
        try:
            with _observed_events(observer, lambda: self.decoding):
                yield
        finally:
            self.observer = previous
            self.decoding = False

    @contextmanager
    def decode_step(self) -> Iterator[None]:
        """Time one decode step as a whole."""
        if self.observer is not None:
            self.observer.begin("decode")
        self.decoding = True
        try:
            yield
        finally:
            self.decoding = False
        if self.observer is not None:
            self.observer.end("decode")


@contextmanager
def _observed_events(observer: StageObserver, decoding: Callable[[], bool]) -> Iterator[None]:
    from token_reduction.tokens.observation import observe

    def told(name: str, begins: bool) -> None:
        stage = DECODE_COMMUNICATION if name == COMMUNICATION and decoding() else name
        if stage in _TOLD:
            (observer.begin if begins else observer.end)(stage)

    with observe(told):
        yield
