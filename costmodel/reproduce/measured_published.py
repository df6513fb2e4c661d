"""The schema of `data/measured.yaml`: measured figures of papers, each with what its source leaves open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from costmodel.reproduce.published import Entry, Printed, Source

if TYPE_CHECKING:
    from typing import Self


class Encoder(Entry):
    """A vision encoder alone: a plain ViT with a class token and an FFN of four times its width."""

    width: Annotated[int, Field(gt=0)]
    layers: Annotated[int, Field(gt=0)]
    image: Annotated[int, Field(gt=0)]
    patch: Annotated[int, Field(gt=0)]


class MeasuredRow(Entry):
    """One measured configuration.

    Attributes:
        model: the model, as the source names it.
        shape: the shipped model of that shape; None for a vision encoder alone.
        method: the method and its parameters; `vanilla` is what the others are compared with.
        counted_as: our method that counts a row whose tokens get fewer inside the tower.
        tokens: visual tokens in the mean over the language model's layers.
        of: visual tokens of the unreduced model, where no row of it is there.
        text: text tokens.
        precision: ours; see `inferred`.
        inferred: what the source does not say.
        full_layers: layers that see every visual token by the method's own definition.
        frozen_layers: ShortV layers.
        prefusion_layers: LLaVA-Mini's layers before the language model.
        encoder: the vision encoder alone.
        merged_per_layer: ToMe's r.
        gmacs: the source's own count.
        time: printed time.
        unit: of the time.
        memory: printed GB of device memory.
        speedup: printed speed-up over the unreduced model.
        throughput: printed images per second.
    """

    model: str
    shape: str | None = None
    method: str
    counted_as: str | None = None
    tokens: Annotated[float, Field(ge=0)] | None = None
    of: Annotated[int, Field(gt=0)] | None = None
    text: Annotated[int, Field(ge=0)] = 40
    precision: Literal["fp16", "fp32", "w4a16"] = "fp16"
    inferred: tuple[str, ...] = ()
    full_layers: Annotated[int, Field(ge=0)] = 0
    frozen_layers: Annotated[int, Field(ge=0)] = 0
    prefusion_layers: Annotated[int, Field(ge=0)] = 0
    encoder: Encoder | None = None
    merged_per_layer: Annotated[int, Field(ge=0)] = 0
    gmacs: Printed | None = None
    time: Printed | None = None
    unit: Literal["s", "ms"] | None = None
    memory: Printed | None = None
    speedup: Printed | None = None
    throughput: Printed | None = None

    @model_validator(mode="after")
    def _one_quantity(self) -> Self:
        given = [x is not None for x in (self.time, self.speedup, self.throughput)]
        if sum(given) != 1:
            raise ValueError("a row has one of time, speedup and throughput")
        if (self.time is None) != (self.unit is None):
            raise ValueError("a time goes with its unit")
        if self.throughput is None and (self.shape is None or self.tokens is None):
            raise ValueError("a language model's row names its shape and its tokens")
        return self

    @property
    def time_s(self) -> float | None:
        """The printed time in seconds."""
        if self.time is None:
            return None
        return float(self.time) * (1e-3 if self.unit == "ms" else 1.0)


class MeasuredSource(Entry):
    """Rows of one table on one device.

    Attributes:
        key: its name.
        label: the same for people.
        source: where it is printed.
        devices: the devices it may be, where the source leaves the form factor open; empty where it
            states none.
        what: what was timed.
        note: what a reader must know.
        rows: the rows.
    """

    key: str
    label: str
    source: Source
    devices: tuple[str, ...]
    what: str
    note: str = ""
    rows: tuple[MeasuredRow, ...]


class MeasuredTable(Entry):
    """All sources."""

    sources: tuple[MeasuredSource, ...]
