"""A request: the arguments of `estimate`, each with its default, its check and its help, written once.

`estimate`, sweeps, the other questions, conventions, profiling and the command line build a `Request`
and hand it on. A new argument is one field here, and one line in the signature and the docstring of
`estimate`; sweeps, contexts, documents and the options of the command line read the fields.

>>> Request("llava-1.5-7b", "nvidia-a100-sxm4-80gb", batch_size=8).batch_size
8
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, MISSING, dataclass, field, fields
from itertools import compress
from operator import attrgetter, is_not
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from costmodel.kinds import (
    Amount,
    Bytes,
    Choice,
    Count,
    Keep,
    Kind,
    Model,
    Named,
    Schedule,
    Size,
)
from costmodel.quantities import MEMORY_MARGIN_BYTES
from hardware_specs.errors import InvalidInputError, UnknownNameError
from hardware_specs.showing import brief, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from costmodel.calibration import Calibration
    from costmodel.methods import Method
    from costmodel.models import ModelConfig
    from costmodel.models.model import ImageSize
    from costmodel.parallel import Parallel
    from costmodel.precision import Precision
    from hardware_specs import HardwareSpec

#: The calibration that is the best there is: the device's own, else the generic law, else the ideal.
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Argument:
    """What is known of one argument besides its name, type and default.

    Attributes:
        kind: what it may be.
        help: one sentence for people.
        role: `subject` (model and device), `number` (an array in a sweep), `setting` (fixes the
            formulas) or `shape` (of the picture).
        if_none: what None stands for in this project's own counting, where it is one value.
        ours: whether it steers this project's formulas alone, and means nothing to a convention.
    """

    kind: Kind
    help: str
    role: str
    if_none: Any = None
    ours: bool = False


def _is(kind: Kind, help_: str, role: str, **more: Any) -> dict[str, Argument]:
    """Return the metadata of an argument's field."""
    return {"argument": Argument(kind, help_, role, **more)}


@dataclass(frozen=True, slots=True)
class Request:
    """One call of `estimate`, checked: every value has the kind and the range its argument asks for.

    The order of the fields is that of the rows of a sweep, the last one fastest within its role.
    Whether a name exists is for its registry to say.

    Raises:
        InvalidInputError: a value of the wrong kind or out of its range.

    >>> Request("llava-1.5-7b", "nvidia-l4", logits="al")
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: logits='al' is unknown; did you mean all; \
there is: last, all
    """

    model: str | Path | ModelConfig = field(metadata=_is(
        Model("a shipped name, a path, a hub id, a config or a ModelConfig", (PathLike,),
              "costmodel.models.ModelConfig"),
        "A model's name, a config.json or its folder, or a hub id.", "subject",
    ))  # fmt: skip
    hardware: str | Path | HardwareSpec = field(metadata=_is(
        Named("a device id, a YAML file or a HardwareSpec", (PathLike,),
              "hardware_specs.HardwareSpec"),
        "Device id (see `specs list`) or a YAML file.", "subject",
    ))  # fmt: skip
    _: KW_ONLY
    visual_tokens: int | None = field(default=None, metadata=_is(
        Count(0), "Visual tokens per sample; the model's own when absent.", "number"
    ))  # fmt: skip
    text_tokens: int | None = field(default=None, metadata=_is(
        Count(0), "Text tokens per sample; 40 and a clip's timestamps, or a convention's own.",
        "number", if_none=40,
    ))  # fmt: skip
    cached_tokens: int = field(default=0, metadata=_is(
        Count(0), "Tokens of the prompt whose keys and values are in the cache already: images first, "
        "or text before them.", "number", ours=True,
    ))  # fmt: skip
    batch_size: int = field(default=1, metadata=_is(Count(1), "Samples.", "number"))
    output_tokens: int = field(default=0, metadata=_is(
        Count(0), "Decode steps after the prefill.", "number"
    ))  # fmt: skip
    precision: str | Mapping[str, str] | Precision = field(default="auto", metadata=_is(
        Named("a precision's name, module=name pairs or a Precision", (Mapping,),
              "costmodel.precision.Precision"),
        "auto (the checkpoint's, else fp16), bf16, int8, int4, awq, nf4, ...", "setting",
    ))  # fmt: skip
    method: str | Method | None = field(default=None, metadata=_is(
        Named("a method's name or a Method", home="costmodel.methods.Method"),
        "A token-reduction method.", "setting",
    ))  # fmt: skip
    keep: int | float | None = field(default=None, metadata=_is(
        Keep(), "What it keeps: 64, or a ratio 0.1.", "setting"
    ))  # fmt: skip
    layer: int | None = field(default=None, metadata=_is(
        Count(0), "Layer K of methods inside the LLM.", "setting"
    ))  # fmt: skip
    tokens_per_layer: Sequence[int] | None = field(default=None, metadata=_is(
        Schedule(), "Visual tokens of every LLM layer, in place of a method: 576x2,288x30.", "setting"
    ))  # fmt: skip
    execution: str = field(default="fused", metadata=_is(
        Named("an execution plan's name"), "fused, hf-eager, cuda-graph or static-graph.", "setting",
        ours=True,
    ))  # fmt: skip
    calibration: Calibration | str | Path | None = field(default=AUTO, metadata=_is(
        Named("a calibration's name, its file or a Calibration", (PathLike,),
              "costmodel.calibration.Calibration", for_none="none"),
        "auto (the device's own, else the generic law), a file, a shipped one's name, or none: the "
        "ideal roofline.", "setting", ours=True,
    ))  # fmt: skip
    convention: str = field(default="torch", metadata=_is(
        Named("a convention's name"), "torch, or another tool's counting.", "setting"
    ))  # fmt: skip
    attention: str | None = field(default=None, metadata=_is(
        Choice(("flash", "eager")), "flash, or eager (scores written out).", "setting",
        if_none="flash",
    ))  # fmt: skip
    logits: str = field(default="last", metadata=_is(
        Choice(("last", "all")), "Rows of logits: last or all.", "setting", ours=True
    ))  # fmt: skip
    vision_layers: str = field(default="executed", metadata=_is(
        Choice(("executed", "useful")), "executed or useful.", "setting", ours=True
    ))  # fmt: skip
    images: int | None = field(default=None, metadata=_is(
        Count(0), "Images per sample; one, or as many as visual tokens say.", "shape"
    ))  # fmt: skip
    image_size: ImageSize | str | None = field(default=None, metadata=_is(
        Size(), "HEIGHTxWIDTH in pixels of every image, or a name: 480x640, 1080p, 480x640+336x336.", "shape"
    ))  # fmt: skip
    frames: int | None = field(default=None, metadata=_is(
        Count(1), "Frames of a video.", "shape"
    ))  # fmt: skip
    min_pixels: int | None = field(default=None, metadata=_is(
        Count(1), "Fewest pixels of an image that keeps its resolution; the checkpoint's own.", "shape"
    ))  # fmt: skip
    max_pixels: int | None = field(default=None, metadata=_is(
        Count(1), "Most pixels of an image that keeps its resolution; the checkpoint's own.", "shape"
    ))  # fmt: skip
    max_tiles: int | None = field(default=None, metadata=_is(
        Count(1), "Most tiles of an image that is cut into them; the checkpoint's own.", "shape"
    ))  # fmt: skip
    memory_margin_bytes: int = field(default=MEMORY_MARGIN_BYTES, metadata=_is(
        Bytes(), "Bytes of the device's memory that context, driver and allocator keep from the "
        "program.", "setting", ours=True,
    ))  # fmt: skip
    host_s: float | None = field(default=None, metadata=_is(
        Amount(1e-2, "us"), "Microseconds the host needs per kernel, where a plan launches them "
        "one by one; the calibration's when absent.", "setting", ours=True,
    ))  # fmt: skip
    power_limit_w: float | None = field(default=None, metadata=_is(
        Amount(1e5, "w"), "The board's power limit in watts; the device's own when absent. A limit "
        "beyond it stands for a burst.", "setting", ours=True,
    ))  # fmt: skip
    tp: int = field(default=1, metadata=_is(
        Count(1), "Devices that share every layer (tensor parallel).", "setting", ours=True
    ))  # fmt: skip
    pp: int = field(default=1, metadata=_is(
        Count(1), "Stages that the layers are cut into (pipeline parallel).", "setting", ours=True
    ))  # fmt: skip
    dp: int = field(default=1, metadata=_is(
        Count(1), "Replicas that share the batch (data parallel).", "setting", ours=True
    ))  # fmt: skip
    tower: str = field(default="replicated", metadata=_is(
        Choice(("replicated", "sharded", "apart")), "Whether every tensor-parallel rank runs the vision "
        "tower, they share its layers, or a device more runs it: replicated, sharded or apart.", "setting",
        ours=True,
    ))  # fmt: skip
    norms: str = field(default="replicated", metadata=_is(
        Choice(("replicated", "sequence")), "Whether every tensor-parallel rank norms all rows, or its share "
        "of the sequence: replicated or sequence.", "setting", ours=True,
    ))  # fmt: skip

    request_s: float = field(default=0.0, metadata=_is(
        Amount(60.0, "ms"), "Milliseconds of the host per request before anything is launched: "
        "tokens, pictures, Python.", "setting", ours=True,
    ))  # fmt: skip

    __repr__ = brief

    def __post_init__(self) -> None:
        """Check every value that is not its default, and keep it in its plain type."""
        values = _values(self)
        given = map(is_not, values, _DEFAULT_VALUES)
        for value, (name, check) in compress(zip(values, _CHECKS, strict=True), given):
            checked = check(name, value)
            if checked is not value:
                object.__setattr__(self, name, checked)

    @property
    def parallel(self) -> Parallel:
        """The plan of parallelism."""
        from costmodel.parallel.degrees import Parallel

        return Parallel(self.tp, self.pp, self.dp, self.tower == "apart")

    def inputs(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Return arguments, or all of them, as a JSON document holds them."""
        return {name: plain(getattr(self, name)) for name in names or ARGUMENTS}


def plain(value: Any) -> Any:
    """Return a value as a document holds it: objects by their id or name."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if type(value) is tuple:
        return list(value)
    if isinstance(value, PathLike):
        return fspath(value)
    name = getattr(value, "id", getattr(value, "name", None))
    return name if isinstance(name, str) else shown(value)


#: What is known of each argument, in the order of the fields.
ARGUMENTS: dict[str, Argument] = {
    place.name: place.metadata["argument"] for place in fields(Request)
}
#: The arguments that limit an image.
BUDGET = ("min_pixels", "max_pixels", "max_tiles")
#: The default of each argument but model and hardware.
DEFAULTS: dict[str, Any] = {
    place.name: place.default for place in fields(Request) if place.default is not MISSING
}
#: The same in this project's own counting, where None stands for one value.
OUR_DEFAULTS: dict[str, Any] = {
    name: ARGUMENTS[name].if_none if default is None else default
    for name, default in DEFAULTS.items()
}
_values = attrgetter(*ARGUMENTS)
_DEFAULT_VALUES = tuple(DEFAULTS.get(name, MISSING) for name in ARGUMENTS)
_CHECKS = tuple((name, known.kind.check) for name, known in ARGUMENTS.items())


def names_of(*roles: str) -> tuple[str, ...]:
    """Name the arguments of some roles.

    >>> names_of("subject", "shape")
    ('model', 'hardware', 'images', 'image_size', 'frames', 'min_pixels', 'max_pixels', 'max_tiles')
    """
    return tuple(name for name, known in ARGUMENTS.items() if known.role in roles)


def check_names(given: Mapping[str, Any], *taken: str, by: str) -> None:
    """Raise for keywords that no argument has, and for those that a question sets itself.

    Args:
        given: the keywords.
        taken: arguments that are not to be given.
        by: the question that sets them.

    Raises:
        UnknownNameError: no such argument; names near ones.
        InvalidInputError: an argument that is set already.

    >>> check_names({"batchsize": 8}, by="sweep")
    Traceback (most recent call last):
    hardware_specs.errors.UnknownNameError: unknown argument 'batchsize'; did you mean batch_size?
    """
    for name in given:
        if name not in ARGUMENTS:
            raise UnknownNameError(name, ARGUMENTS, "argument")
    if held := [name for name in taken if name in given]:
        raise InvalidInputError(f"{by} sets {', '.join(held)} itself; leave it out")
