"""One configuration, ready to be run repeatedly, stage by stage.

Without a method the visual tokens go to the language model as embeddings: the tower and projector
run on the model's own input and the first N visual tokens are taken, so any N costs what it costs
with an ideal, free reduction, and nothing synchronises the device. With a method the model is called
with pixels under `token_reduction.reduce_tokens`, as a user would.
"""

from __future__ import annotations

import copy
import os
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from costmodel.models.families import get_family
from hardware_specs.errors import InvalidInputError, UnsupportedError
from profiling.records.measurement import TOTAL, Configuration, TokenCounts
from profiling.subject.inputs import VisualInputs, encode, text_ids, visual_inputs
from profiling.subject.library_workarounds import counts_stay_unread, products_stay_unprinted
from profiling.subject.stages import StageHooks, StageObserver, anatomy
from token_reduction.caches import cache_keyword, cache_of, set_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch import nn

    from costmodel.models import ModelConfig

#: transformers compares token counts on the device in every forward; this spares the stall.
_CHECK_VARIABLE = "TRANSFORMERS_DISABLE_TORCH_CHECK"


class Execution:
    """A model, its inputs and its method, ready to run.

    Use `with execution.ready():` around everything that runs it.

    Args:
        model: as `profiling.subject.models.build_model` returns it.
        shape: the cost model's description of the model.
        configuration: the settings to run.

    Raises:
        InvalidInputError: more visual tokens than positions, or an image requested of a text-only model.
    """

    def __init__(self, model: nn.Module, shape: ModelConfig, configuration: Configuration) -> None:
        self.model = model
        self.shape = shape
        self.configuration = configuration
        self.parts = anatomy(model)
        self.hooks = StageHooks(self.parts)
        self.visual: VisualInputs | None = None
        self.tokens = TokenCounts()
        self._method: Any = None
        asked = configuration.visual_tokens
        if configuration.method != "none":
            self._method = method_for(configuration)
        if self.parts.has_vision and asked != 0:
            needed = None if self._method is not None else asked
            self.visual = visual_inputs(
                model, shape, batch_size=configuration.batch_size, visual_tokens=needed,
                images=configuration.images, image_sizes=configuration.image_sizes,
                frames=configuration.frames,
            )  # fmt: skip
        elif self._method is not None:
            raise UnsupportedError(
                f"method {configuration.method!r} reduces visual tokens, and {shape.name} has none"
            )
        self._before, self._after = text_ids(
            model, configuration.text_tokens, configuration.batch_size
        )
        self._ids: torch.Tensor | None = None
        self._flush = _flusher(configuration)

    @contextmanager
    def ready(self) -> Iterator[Execution]:
        """Attach hooks, put the method into the model, switch gradients and checks off; undo all."""
        import torch

        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(_environment(_CHECK_VARIABLE, "1"))
            stack.enter_context(products_stay_unprinted(self.configuration.dtype))
            if self._method is not None or (self.visual is not None and self.visual.whole):
                # The placeholders are counted before the method shortens anything.
                self._ids = self._placeholder_ids()
            if self._method is not None:
                stack.enter_context(self._reduction())
                stack.enter_context(counts_stay_unread(self.model))
                # `count_tokens` looks for NaN; in timed runs that would be booked on the method.
                stack.enter_context(_checks("off"))
            self.hooks.attach()
            stack.callback(self.hooks.detach)
            yield self

    def _reduction(self) -> Any:
        from token_reduction import reduce_tokens

        assert self.visual is not None  # noqa: S101  (a method implies pixels)
        asked, family = self.configuration.frames, get_family(self.shape.model_type)
        frames = asked if family.frames_as_images else None
        crops = self.visual.crops_of_images * self.visual.batch_size if frames is None else ()
        return reduce_tokens(self.model, self._method, frames=frames, crops=crops or None)

    def run(self, observer: StageObserver | None = None, *, decode: bool = True) -> None:
        """Run one repetition: everything to the first logits, then the decode steps.

        Args:
            observer: is told when each stage begins and ends.
            decode: whether to run the configuration's decode steps.
        """
        self._flush()
        with self.hooks.observing(observer) if observer is not None else nullcontext():
            if observer is not None:
                observer.begin(TOTAL)
            output = self.first_logits()
            if observer is not None:
                observer.end(TOTAL)
            for _ in range(self.configuration.output_tokens if decode else 0):
                with self.hooks.decode_step():
                    output = self.decode(output)

    def first_logits(self) -> Any:
        """Run vision, projector, reduction and prefill; return the model's output with its cache."""
        if self._ids is not None and self.visual is not None:
            return self.model(**self.visual.call(self._ids), use_cache=True, logits_to_keep=1)
        return self.prefill(self._placed(self.visual_tokens()))

    def _placed(self, visual: torch.Tensor | None) -> torch.Tensor:
        """Embed the text around the visual tokens, timed with the projector as the cost model has it.

        A text-only model has no projector: its look-up lies before the prefill, in the total.
        """
        observer = self.hooks.observer
        if observer is None or visual is None:
            return self.embeddings(visual)
        observer.begin("projector")
        embeddings = self.embeddings(visual)
        observer.end("projector")
        return embeddings

    def visual_tokens(self) -> torch.Tensor | None:
        """Run tower and projector and return the visual tokens for the language model, [b, n, d]."""
        if self.visual is None:
            return None
        tokens = encode(self.model, self.visual)
        wanted = self.configuration.visual_tokens
        return tokens if wanted is None else tokens[:, :wanted]

    def embeddings(self, visual: torch.Tensor | None) -> torch.Tensor:
        """Return the language model's input: text around the visual tokens, [b, s, d].

        A text-only model is given its "visual" tokens as more text.
        """
        import torch

        language: Any = self.parts.language
        table = language.get_input_embeddings()
        if visual is None:
            count = self.configuration.visual_tokens or 0
            filler = self._after[:, :1].expand(-1, count)
            ids = torch.cat((self._before, filler, self._after), dim=1)
            result: torch.Tensor = table(ids)
            return result
        before, after = table(self._before), table(self._after)
        return torch.cat((before, visual.to(before.dtype), after), dim=1)

    def prefill(self, embeddings: torch.Tensor) -> Any:
        """Run the language model and the head's last row on embeddings, [b, s, d]."""
        return self.model(inputs_embeds=embeddings, use_cache=True, logits_to_keep=1)

    def decode(self, output: Any) -> Any:
        """Run one decode step after an output, greedily, without waiting for the device."""
        token = output.logits[:, -1:].argmax(dim=-1)
        return self.model(
            input_ids=token,
            **{cache_keyword(): cache_of(output)},
            use_cache=True,
            logits_to_keep=1,
        )

    def resident_tensors(self) -> list[torch.Tensor]:
        """Return the inputs, which live on the device before anything runs."""
        tensors = [self._before, self._after]
        if self._ids is not None:
            tensors.append(self._ids)
        if self.visual is not None:
            tensors += self.visual.arguments.values()
        return tensors

    def count_tokens(self) -> TokenCounts:
        """Run once and return the token counts as the model saw them; NaN is refused here."""
        lengths: list[int] = []

        def seen(_module: Any, args: Any, kwargs: Any) -> None:
            embeds = kwargs.get("inputs_embeds")
            if embeds is None and args:
                embeds = args[0]
            if embeds is not None:
                lengths.append(int(embeds.shape[1]))

        handle = self.parts.language.register_forward_pre_hook(seen, with_kwargs=True)
        try:
            with _checks("now"):
                output = self.first_logits()
        finally:
            handle.remove()
        text = self.configuration.text_tokens
        return TokenCounts(
            visual_in=None if self.visual is None else self._projected_tokens(self.visual),
            visual_llm=lengths[0] - text if lengths else None,
            text=text,
            crops=self.visual.crops if self.visual is not None else 0,
            cache_lengths=cache_lengths(cache_of(output)),
        )

    def _projected_tokens(self, visual: VisualInputs) -> int:
        if self._ids is not None:
            return int((self._ids[0] == visual.placeholder_id).sum())
        return int(encode(self.model, visual).shape[1])

    def _placeholder_ids(self) -> torch.Tensor:
        import torch

        assert self.visual is not None  # noqa: S101  (a method implies pixels)
        pieces = self.visual.pieces or (encode(self.model, self.visual).shape[1],)
        between = len(pieces) - 1
        if between >= self._after.shape[1]:
            raise InvalidInputError(
                f"{len(pieces)} images or pairs of frames have text between them: give text_tokens of "
                f"at least {self._before.shape[1] + len(pieces)}"
            )
        shown = [
            self._before.new_full((self._before.shape[0], count), self.visual.placeholder_id)
            for count in pieces
        ]
        apart = [part for each in shown[:-1] for part in (each, self._after[:, :1])]
        return torch.cat((self._before, *apart, shown[-1], self._after[:, between:]), dim=1)

    def stage_callables(self) -> dict[str, Callable[[], Any]]:
        """Return each stage as a function of nothing, to repeat it alone (energy, profiler).

        `total` is always there; `vision` (tower with projector), `prefill` and `decode` (one step
        at the prompt's length) where the stage can be run by itself.
        """
        calls: dict[str, Callable[[], Any]] = {TOTAL: self.first_logits}
        if self._method is None:
            embeddings = self.embeddings(self.visual_tokens())
            calls["prefill"] = lambda: self.prefill(embeddings)
            if self.visual is not None:
                calls["vision"] = self.visual_tokens
        if self.configuration.output_tokens:
            output = self.first_logits()
            calls["decode"] = lambda: self.decode(_with_own_cache(output))
        return calls


def _with_own_cache(output: Any) -> Any:
    """Return an output whose cache can grow without growing the original's tensors."""
    twin = copy.copy(output)
    set_cache(twin, fork_cache(cache_of(output)))
    return twin


def fork_cache(cache: Any) -> Any:
    """Return a cache that shares its tensors with another but grows on its own.

    `DynamicCache` layers replace their tensors when they grow, so copying the layer objects, and
    not what they hold, is enough.
    """
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    return twin


def cache_lengths(cache: Any) -> tuple[int, ...]:
    """Return the length of every layer of a KV cache; a method may have left it ragged."""
    if cache is None:
        return ()
    return tuple(
        int(layer.keys.shape[-2]) if getattr(layer, "is_initialized", False) else 0
        for layer in cache.layers
    )


def method_for(configuration: Configuration) -> Any:
    """Return the reduction method of a configuration.

    Raises:
        UnknownMethodError: no such method.
        InvalidInputError: the method refuses what it was asked to keep.
    """
    from token_reduction import get_method

    keep = configuration.keep
    if keep is None:
        keep = configuration.visual_tokens
    try:
        return get_method(configuration.method, keep=keep)
    except TypeError as error:
        raise InvalidInputError(
            f"method {configuration.method!r} cannot be asked to keep {keep!r}: {error}"
        ) from error


def _checks(mode: Literal["now", "off"]) -> Any:
    from token_reduction.tokens.checks import finite_checks

    return finite_checks(mode)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    previous = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if previous is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = previous


def _flusher(configuration: Configuration) -> Callable[[], object]:
    """Return what empties the device's caches before a repetition, nothing when they stay warm."""
    if configuration.cache == "warm":
        return lambda: None
    import torch

    from profiling.devices.device import open_device

    place = open_device(configuration.device).place
    # 256 MB is beyond every L2 and most last-level caches, and what triton's do_bench clears.
    return torch.empty(256 * 1024 * 1024, dtype=torch.int8, device=place).zero_
