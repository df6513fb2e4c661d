"""Published figures: small YAML files with their source, checked when they are read."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from costmodel.reproduce.digits import decimals
from hardware_specs.errors import InvalidFileError
from hardware_specs.files.strict_yaml import parse_yaml

if TYPE_CHECKING:
    from typing import Self


def _printed(text: str) -> str:
    decimals(text)
    return text


#: A number as printed, digits and all.
Printed = Annotated[str, AfterValidator(_printed)]
#: `primary` was read in the paper or its repository; `secondary` in a summary by others.
Grade = Literal["primary", "secondary"]


class Entry(BaseModel):
    """Base of all entries: no unknown key, no change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Entry):
    """Where figures come from."""

    paper: str
    arxiv: str
    table: str
    grade: Grade

    def __str__(self) -> str:
        """Return it as a citation."""
        return f"{self.paper} (arXiv {self.arxiv}), {self.table}"


class PaperRow(Entry):
    """One published count, and the setting that it is for.

    Attributes:
        model: the model, as the paper names it.
        shape: the shipped model (or `qwen-7b`) whose language model is counted.
        method: the method and its parameters, in words.
        visual: visual tokens entering the language model.
        text: text tokens, where they are not the convention's own.
        k: the first layer behind a pruning inside the model.
        prune: the share of visual tokens removed there.
        stage_ratio: PyramidDrop's lambda.
        frozen_layers: ShortV layers.
        prefusion_layers: LLaVA-Mini's layers before the language model.
        of: visual tokens of the model a percentage refers to.
        crops: image crops.
        part: the part of the model that is counted.
        layer_mean: whether `visual` is a mean over layers whose schedule is not given.
        published: the printed number.
        unit: its unit.
        gated: whether it must be reproduced; False where an input had to be solved from the table.
        note: a remark.
        misfit: why the cell does not fit, where it does not.
    """

    model: str
    shape: str
    method: str
    visual: Annotated[int | float, Field(ge=0)]
    text: Annotated[int | float, Field(ge=0)] | None = None
    k: Annotated[int, Field(ge=0)] | None = None
    prune: Annotated[float, Field(gt=0, le=1)] | None = None
    stage_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    frozen_layers: Annotated[int, Field(ge=0)] = 0
    prefusion_layers: Annotated[int, Field(ge=0)] = 0
    of: int | None = None
    crops: Annotated[int, Field(ge=1)] = 1
    part: Literal["total", "vision", "projector", "llm"] | None = None
    layer_mean: bool = False
    published: Printed
    unit: str
    gated: bool = True
    note: str | None = None
    misfit: str | None = None

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.k is None) != (self.prune is None):
            raise ValueError("k and prune go together")
        return self


class PaperTable(Entry):
    """A paper's counts.

    Attributes:
        source: where they are printed.
        tolerance: relative deviation up to which a row counts as fitting.
        rows: the rows.
    """

    source: Source
    tolerance: Annotated[float, Field(gt=0, lt=1)]
    rows: tuple[PaperRow, ...]


class Scenario(Entry):
    """A prompt: visual and text tokens."""

    visual_tokens: Annotated[int, Field(ge=0)]
    text_tokens: Annotated[int, Field(ge=0)]


class PruMergeRow(Entry):
    """One row of PruMerge's Table 2, its four cells as printed."""

    model: Literal["7b", "13b"]
    precision: Literal["FP16", "INT4"]
    row: Literal["LLaVA-1.5", "PruMerge"]
    flops: Printed
    prefill_time: Printed
    total_memory: Printed
    storing_activation: Printed


class PruMergeTable(Entry):
    """PruMerge's Table 2.

    Attributes:
        source: where it is printed.
        device: LLM-Viewer's name of the device.
        lengths: row -> the sequence length behind the printed numbers.
        stated: row -> the prompt the paper states.
        rows: the rows.
        remarks: cell -> what needs saying about it.
    """

    source: Source
    device: str
    lengths: dict[str, int]
    stated: dict[str, Scenario]
    rows: tuple[PruMergeRow, ...]
    remarks: dict[str, str]


class LadderFormula(Entry):
    """A closed form: FFN matrices, operations per MAC, whether the encoders are in it, all tokens."""

    ffn_matrices: Literal[2, 3]
    operations_per_mac: Literal[1, 2]
    encoder: bool
    total_tokens: int


class LadderRow(Entry):
    """One paper's count of the same model and image, by a convention or by a solved formula."""

    paper: str
    arxiv: str | None
    grade: Grade
    convention: str | None = None
    per_layer: bool = False
    text_tokens: int | None = None
    formula: LadderFormula | None = None
    published: Printed
    unit: str
    note: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.convention is None) == (self.formula is None):
            raise ValueError("a rung has either a convention or a formula")
        return self


class Ladder(Entry):
    """The same model and image under every convention."""

    model: str
    visual_tokens: int
    rows: tuple[LadderRow, ...]


T = TypeVar("T", bound=Entry)


def load_published(name: str, schema: type[T]) -> T:
    """Read a data file and check it.

    Raises:
        InvalidFileError: the file does not hold that.

    >>> load_published("fastv", PaperTable).rows[0].published
    '99.3'
    """
    path = files("costmodel.reproduce").joinpath("data", f"{name}.yaml")
    document: Any = parse_yaml(path.read_text(encoding="utf-8"))
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        raise InvalidFileError(f"published figures {name}.yaml: {error}") from error
