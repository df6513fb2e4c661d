"""Options that several commands share, and the parsing of their values.

The options of what a request asks are made of the fields of `Request`: `request_options` gives them to
a command, which gets what was typed as one dictionary of arguments.
"""

from __future__ import annotations

import inspect
import re
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from costmodel.kinds import Amount, Bytes, Count, Keep, Schedule, Size
from costmodel.request import ARGUMENTS, DEFAULTS, OUR_DEFAULTS, check_names, plain
from hardware_specs.errors import InvalidInputError
from vlm_roofline.cli.as_typed import unit_of
from vlm_roofline.cli.completion import completes
from vlm_roofline.cli.method_settings import MethodOptions, Variant, with_settings
from vlm_roofline.cli.paths import typed_path
from vlm_roofline.cli.pictures import PICTURE_OPTIONS, pictured, sampled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costmodel.models.model import ImageSize


#: Layers that one entry of a schedule may stand for.
MOST_LAYERS = 10_000
#: Options that take one value in a sweep as well: its commas are its own.
_ONE_VALUE = ("calibration", "tokens_per_layer")
#: Numbers that one option may name; the combinations of several options go far beyond.
MOST_COUNTS = 1_000_000


def written_to(help_: str, *endings: str) -> Any:
    """Return the option of a file to write, refused by its ending before anything is computed.

    Without `endings` it is a picture.
    """

    def check(path: Path | None) -> Path | None:
        if path is not None:
            from costmodel.plots.style import FORMATS
            from hardware_specs.files.writing import check_ending

            check_ending(path, *endings or FORMATS)
        return path

    return typer.Option(help=help_, callback=check, parser=typed_path, metavar="<path>")


def in_unit(flag: str, help_: str) -> Any:
    """Return the option of a number whose argument is in another unit."""

    def number(text: str | float) -> float:
        try:
            return parse_amount(flag, text)
        except InvalidInputError:
            raise typer.BadParameter(f"{text!r} is not a valid float") from None

    return typer.Option(flag, help=help_, parser=number, metavar="<float>")


def hardware_option(help_: str) -> Any:
    """Return the option of a device, or of several, completed by their names."""
    return typer.Option("--hardware", "-d", help=help_, autocompletion=completes("hardware"))


HTML = (".html", ".htm")
ModelArgument = Annotated[
    str, typer.Argument(help=ARGUMENTS["model"].help, autocompletion=completes("model"))
]
Records = Annotated[
    list[Path],
    typer.Argument(metavar="DIR", parser=typed_path, help="Folders or files of measured records."),
]
TimesOf = Annotated[
    str,
    typer.Option(help="auto, a file, a shipped calibration's name, or none: the ideal roofline."),
]
NamedModel = Annotated[
    str, typer.Option(help="A model's name, a config.json or its folder, or a hub id.")
]
Scale = Annotated[
    str | None, typer.Option(help="Take a smaller shape, such as layers=4,width=1/4.")
]
WorkFolder = Annotated[
    Path,
    typer.Option(
        parser=typed_path,
        metavar="<path>",
        help="Folder for everything; what was interrupted goes on.",
    ),
]
Attention = Annotated[str, typer.Option(help="Attention of transformers: sdpa, eager.")]
FoundHardware = Annotated[
    str | None, hardware_option("Device id or YAML file; found by its name if absent.")
]
SEVERAL_DEVICES = "Devices: h100,l40s (see `specs list`)."
Budget = Annotated[float | None, in_unit("--memory-gb", "Budget for the peak memory, 1e9 bytes.")]
Device = Annotated[str, typer.Option(help="cuda, cuda:N or cpu.")]
TextTokens = Annotated[int, typer.Option(help="Text tokens per sequence.")]
ImageSizes = Annotated[
    str | None,
    typer.Option(help="HEIGHTxWIDTH of every image, or one for each: 480x640+336x336."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def typed(context: typer.Context) -> dict[str, str]:
    """Return the parameters that were given on the command line, each with its option, or its name."""
    sources = [
        (each, context.get_parameter_source(str(each.name))) for each in context.command.params
    ]
    return {
        str(each.name): each.opts[0]
        for each, source in sources
        if source is not None and source.name == "COMMANDLINE"
    }


def refuse_threads(context: typer.Context, device: str) -> None:
    """Refuse `--threads`, which are a CPU's, beside another device."""
    if "threads" in typed(context) and not device.startswith("cpu"):
        raise InvalidInputError(
            f"--threads are those of a CPU; leave it out beside --device {device}"
        )


def refuse_margin(context: typer.Context) -> None:
    """Refuse `--memory-margin-bytes`, which is kept from the device's own memory, beside a budget."""
    if {"memory_bytes", "memory_margin_bytes"} <= typed(context).keys():
        raise InvalidInputError(
            "--memory-gb is all for the program, and --memory-margin-bytes is kept from the device's own "
            "memory; leave out one"
        )


def parse_keep(text: str | None) -> int | float | None:
    """Return a count for `64`, a ratio for `0.1` or `10%`, None for nothing.

    >>> parse_keep("64"), parse_keep("0.098"), parse_keep("50%"), parse_keep(None)
    (64, 0.098, 0.5, None)
    """
    otherwise = f"--keep {text!r} is neither a count such as 64 nor a ratio such as 0.1 or 10%"
    if text is not None and text.endswith("%"):
        return float(_number(text[:-1].strip(), otherwise) or 0) / 100
    return _number(text, otherwise)


def parse_bytes(text: str | None) -> int | float | None:
    """Return a number of bytes: `1073741824`, or `1e9`.

    >>> parse_bytes("0"), parse_bytes("5e8")
    (0, 500000000.0)
    """
    return _number(text, f"{text!r} is no number of bytes such as 1073741824 or 1e9")


def _number(text: str | None, otherwise: str) -> int | float | None:
    if text is None:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise InvalidInputError(otherwise)


def parse_image_size(text: str | None) -> ImageSize | None:
    """Return (height, width) of `HEIGHTxWIDTH` or `1080p`, or one of them for each image, joined by `+`.

    >>> parse_image_size("480x640"), parse_image_size("480x640+1080p")
    ((480, 640), ((480, 640), (1080, 1920)))
    """
    from costmodel.models.model import read_size

    return None if text is None else read_size(text)


def parse_schedule(text: str | None) -> list[int] | None:
    """Return the tokens of every layer of `576x2,288x30` (tokens x layers) or of a JSON list.

    >>> parse_schedule("576x2,288"), parse_schedule("[576, 288]")
    ([576, 576, 288], [576, 288])
    """
    if text is None:
        return None
    layers: list[int] = []
    for part in split(text.strip().removeprefix("[").removesuffix("]")):
        tokens, _, count = part.partition("x")
        count = count if "x" in part else "1"
        if not (tokens.isdecimal() and count.isdecimal()) or int(count) > MOST_LAYERS:
            raise InvalidInputError(
                f"--tokens-per-layer {part!r} is not TOKENSxLAYERS, such as 576x2,288x30"
            )
        layers += [int(tokens)] * int(count)
    return layers


def split(text: str | None) -> list[str]:
    """Return the parts of a comma-separated list, none of them empty; commas in brackets part nothing.

    >>> split("none, evit(keep=0.5, layers=[2,5]),")
    ['none', 'evit(keep=0.5, layers=[2,5])']
    """
    parts = re.findall(r"(?:\([^)]*\)?|[^,(])+", text or "")
    return [part.strip() for part in parts if part.strip()]


def parse_counts(name: str, text: str) -> list[int]:
    """Return whole numbers of `1,16,64` and of ranges `START:STOP:STEP`, STOP included.

    >>> parse_counts("--visual-tokens", "1,64:256:64")
    [1, 64, 128, 192, 256]
    """
    counts: list[int] = []
    for part in split(text):
        bounds = part.split(":")
        if not all(bound.isdecimal() for bound in bounds) or len(bounds) > 3:
            raise InvalidInputError(
                f"{name} {part!r} is neither a whole number nor a range START:STOP[:STEP]"
            )
        numbers = [int(bound) for bound in bounds]
        if len(numbers) == 1:
            counts += numbers
            continue
        step = numbers[2] if len(numbers) == 3 else 1
        if step < 1 or numbers[1] < numbers[0]:
            raise InvalidInputError(
                f"{name} {part!r} is an empty range; give START <= STOP, STEP >= 1"
            )
        span = range(numbers[0], numbers[1] + 1, step)
        # Checked before the list is built: a slip of the keyboard must not take all the memory.
        if len(span) > MOST_COUNTS:
            raise InvalidInputError(
                f"{name} {part!r} names {len(span)} numbers; at most {MOST_COUNTS} go into one option"
            )
        counts += span
    if not counts:
        raise InvalidInputError(f"{name} {text!r} names no number")
    return counts


def parse_amount(flag: str, text: str | float) -> float:
    """Return a number in the argument's unit of one in its option's.

    >>> parse_amount("--host-us", "17"), parse_amount("--latency-ms", "9")
    (1.7e-05, 0.009)
    """
    unit = unit_of(flag)
    try:
        # A division by a whole number rounds once.
        return float(text) / round(1 / unit) if unit < 1 else float(text) * unit
    except ValueError:
        raise InvalidInputError(f"{flag} {text!r} is no number, such as 17") from None


def _flag(name: str) -> str:
    """Return an argument's option, with the unit in which it is typed."""
    kind = ARGUMENTS[name].kind
    stem = name.rpartition("_")[0] if isinstance(kind, Amount) else name
    suffix = f"_{kind.suffix}" if isinstance(kind, Amount) else ""
    return "--" + (stem + suffix).replace("_", "-")


def written(given: Mapping[str, Any]) -> list[str]:
    """Return the options that say these arguments on a command line, the defaults left out.

    >>> written({"execution": "hf-eager", "calibration": "auto", "host_s": 5e-6, "images": 2})
    ['--execution hf-eager', '--host-us 5', '--images 2']
    >>> written({"image_size": (480, 640), "method": "tome(r=8)", "tokens_per_layer": (576, 576)})
    ['--image-size 480x640', "--method 'tome(r=8)'", '--tokens-per-layer 576,576']
    """
    words = []
    for name, value in given.items():
        if value in (None, DEFAULTS.get(name), OUR_DEFAULTS.get(name)):
            continue
        kind = ARGUMENTS[name].kind
        text = str(plain(value))
        if isinstance(kind, Amount):
            text = f"{value / unit_of(_flag(name)):.12g}"
        elif isinstance(kind, Size):
            from costmodel.models.model import write_size

            text = write_size(value)
        elif isinstance(kind, Schedule):
            text = ",".join(map(str, value))
        elif name == "method":
            text = getattr(value, "label", text)
        words.append(f"{_flag(name)} {quote(text)}")
    return words


def request_options(
    *without: str, several: bool = False, **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each argument of a request.

    Image files, and rate and length of a video, are options as well, which become image size and frames.
    The command is called with the arguments as its first parameter, a dictionary, and with its other
    parameters by keyword. One of those that has the name of an argument takes its option's place.
    Where there is `--method`, `--variant` and `--option` set it further.

    Args:
        without: arguments that the command does not offer.
        several: whether an option takes several values, as in a sweep.
        defaults: defaults that are the command's own.

    >>> @request_options("convention", execution="hf-eager")
    ... def command(given: dict[str, object], *, json: bool = False) -> None: ...
    >>> list(inspect.signature(command).parameters)[-1]
    'json'
    """
    check_names(dict.fromkeys((*without, *defaults)), by="request_options")

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = dict(list(inspect.signature(command, eval_str=True).parameters.items())[1:])
        names = [name for name in ARGUMENTS if name not in without and name not in own]
        # Where no convention is offered, None means one thing, and the help can say which.
        known = DEFAULTS if "convention" in names else OUR_DEFAULTS
        # A clip's timestamps come on top of the default text.
        known = known | {"text_tokens": None} | defaults

        settings: dict[str, Any] = {}
        if "method" in names:
            settings = {"variant": Variant, "option": MethodOptions}

        def called(**typed: Any) -> None:
            given = {name: parsed(name, typed.pop(name), several=several) for name in names}
            seen = {name: typed.pop(name, None) for name in PICTURE_OPTIONS}
            subject = {"model": typed["model"]} if "model" in typed else {}
            shown = pictured(seen["image"], given | subject)
            shown |= sampled(seen["fps"], seconds=seen["seconds"], given=given)
            given |= {name: [value] for name, value in shown.items()} if several else shown
            if settings:
                variant, option = (typed.pop(name) for name in settings)
                methods = given["method"] if several else [given["method"] or "none"]
                if variant is not None or option:
                    methods = with_settings(methods, variant=variant, options=option)
                    given["method"] = methods if several else methods[0]
            if several:
                given = {name: value for name, value in given.items() if value is not None}
            command(given, **typed)

        beside = {"method": settings, "max_tiles": PICTURE_OPTIONS}
        options = []
        for name in names:
            options.append(_option(name, known, several))
            options += [
                inspect.Parameter(
                    each, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
                )
                for each, annotation in beside.get(name, {}).items()
            ]
        # What a command asks for in its own way comes first.
        replaced = [own.pop(name) for name in ARGUMENTS if name in own]
        options[1:1] = [each.replace(kind=each.KEYWORD_ONLY) for each in replaced]
        parameters = [*options, *(each.replace(kind=each.KEYWORD_ONLY) for each in own.values())]
        called.__name__, called.__doc__ = command.__name__, command.__doc__
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {each.name: each.annotation for each in parameters}
        return called

    return decorate


def _option(name: str, defaults: dict[str, Any], several: bool) -> inspect.Parameter:
    """Return the parameter that typer makes an option of."""
    known, default = ARGUMENTS[name], defaults.get(name, inspect.Parameter.empty)
    help_ = known.help
    if several:
        if default is not inspect.Parameter.empty and default is not None:
            default = str(default)
        if name == "method":
            default = "none"
        if isinstance(known.kind, Count):
            help_ += " Counts and ranges: 1,64 or 0:576:16."
        elif name not in _ONE_VALUE:
            help_ += " Several: comma-separated."
    kind: Any = int if isinstance(known.kind, Count) and not several else str
    declared: Any = typer.Option(help=help_, autocompletion=completes(name))
    if name == "model":
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=ModelArgument)
    if name == "hardware":
        declared = hardware_option(help_)
    elif isinstance(known.kind, Amount):
        declared = typer.Option(_flag(name), help=help_)
    if default is None:
        kind = kind | None
    annotation = Annotated[kind, declared]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def parsed(name: str, text: Any, *, several: bool) -> Any:
    """Return the value, or the list of values, that an option's text names."""
    kind: Any = ARGUMENTS[name].kind
    if text is None:
        return None
    if isinstance(kind, Count):
        return parse_counts(_flag(name), text) if several else text
    readers: dict[type, Any] = {
        Bytes: parse_bytes,
        Keep: parse_keep,
        Schedule: parse_schedule,
        Size: parse_image_size,
        Amount: partial(parse_amount, _flag(name)),
    }
    read = readers.get(type(kind), str)
    return (
        [read(part) for part in split(text)] if several and name not in _ONE_VALUE else read(text)
    )
