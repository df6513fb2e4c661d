"""`vlm-roofline calibrate`: fit a device's calibration to measured ops, or measure them first."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from hardware_specs.errors import CalibrationError, InvalidInputError
from vlm_roofline.cli.console import bars, console, print_json, progress
from vlm_roofline.cli.options import Json, hardware_option, split, typed, written_to
from vlm_roofline.cli.paths import typed_file

if TYPE_CHECKING:
    from costmodel.calibration import Calibration, ClassParameters


#: Options of ops that are measured now, and those of tables.
_OF_MEASURING = ("device", "dtypes", "keep_table")
_OF_TABLES = ("software", "date", "time_unit")


def calibrate(
    context: typer.Context,
    out: Annotated[Path, written_to("The calibration: FILE.json.", ".json")],
    tables: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TABLE",
            parser=typed_file,
            help="Measured ops: CSV or Parquet files, or folders of them. None: measure them now.",
        ),
    ] = None,
    hardware: Annotated[
        str | None,
        hardware_option("Device id or a YAML file; may be left out when its ops are measured now."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to measure: cuda, cuda:N or cpu.")] = "cuda",
    model: Annotated[
        str | None,
        typer.Option(
            help="Whose widths are measured (llava-1.5-7b; a size-reduced one for a CPU), or were in a "
            "table that does not hold them."
        ),
    ] = None,
    dtypes: Annotated[
        str | None,
        typer.Option(help="What to measure, such as bf16,fp8; fp32 on a CPU, else bf16."),
    ] = None,
    keep_table: Annotated[
        Path | None, written_to("Keep the measured ops as well: FILE.json.", ".json")
    ] = None,
    software: Annotated[str, typer.Option(help="What ran the measured ops; kept in the file.")] = "",
    date: Annotated[str, typer.Option(help="When, such as 2026-05-01; kept in the file.")] = "",
    time_unit: Annotated[
        str | None,
        typer.Option(help="Unit of a column `time` in tables without time_s: s, ms, us or ns."),
    ] = None,
    near: Annotated[
        str | None,
        typer.Option(
            help="The calibration of a device of the same architecture, a shipped one's name or a file, "
            "from which fits may start and what was not measured is transferred.",
        ),
    ] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Fit efficiencies, overheads and stairs per op class; say what could not be fitted."""
    unread, what = (_OF_MEASURING, "measured now") if tables else (_OF_TABLES, "read from tables")
    for name, option in typed(context).items():
        if name in unread:
            raise InvalidInputError(f"{option} is for ops that are {what}; leave it out")
    if tables:
        from costmodel.calibration import fit_calibration
        from hardware_specs import get_hardware

        if hardware is None:
            raise InvalidInputError(
                "name the device of the tables with --hardware ID (see `vlm-roofline specs list`)"
            )
        found = fit_calibration(
            tables, get_hardware(hardware), software=software, date=date, time_unit=time_unit,
            model=model, near=near, progress=progress,
        )  # fmt: skip
    else:
        from profiling import calibrate as measure

        for path in filter(None, (out, keep_table)):
            _check_place(path)
        try:
            with bars() as update:
                found = measure(
                    device, hardware=hardware, model=model or "llava-1.5-7b", dtypes=split(dtypes),
                    table=keep_table, near=near, on_progress=partial(update, "measuring"),
                )  # fmt: skip
        except CalibrationError as error:
            raise _kept(error, keep_table, out) from error
    found.save(out)
    if json:
        print_json({"out": str(out), "calibration": found.to_dict()})
    else:
        _print(found, out)


def _check_place(path: Path) -> None:
    """Refuse a file that cannot be written before minutes of measuring are spent on it."""
    from hardware_specs.files.writing import prepare_folder

    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder; name a file in it")
    prepare_folder(path.parent)


def _kept(error: CalibrationError, table: Path | None, out: Path) -> CalibrationError:
    """Keep what was measured before its fit was refused; say where, and how to fit it again."""
    if error.measured is None:
        return error
    from hardware_specs import list_hardware, save_hardware

    ops, spec = error.measured
    path = table or ops.write(out.with_name(f"{out.stem}.ops.json"))
    device = spec.id
    if device not in list_hardware():
        device = str(out.with_name(f"{spec.id}.yaml"))
        save_hardware(spec, device)
    again = f"vlm-roofline calibrate {quote(str(path))} -d {quote(device)} --out {quote(str(out))}"
    return CalibrationError(
        f"{error}; measure again when the machine is quiet, or fit the {len(ops.rows)} ops that were "
        f"measured as they are: {again}"
    )


def _print(found: Calibration, out: Path) -> None:
    from vlm_roofline.cli.tables import Column, columns, table

    fitted = [(each, each.held_out) for each in found.classes.values() if each.held_out is not None]
    shown = [
        Column("class", lambda row: row[0].op_class, whole=True),
        Column("dtype", lambda row: row[0].dtype),
        Column("kernels", lambda row: row[0].kernels or "-"),
        *columns(
            "1",
            points=lambda row: row[0].points,
            compute_eff=lambda row: _interval(row[0], "compute_efficiency", 1.0, 2),
            memory_eff=lambda row: _interval(row[0], "memory_efficiency", 1.0, 2),
            overhead_us=lambda row: _interval(row[0], "overhead_s", 1e6, 1),
            held_out=lambda row: row[1].points,
        ),
        Column("MAPE %", lambda row: f"{row[1].mape * 100:.1f}", "1"),
        Column("worst %", lambda row: f"{row[1].worst * 100:.0f}", "1"),
        Column("90 % interval covers %", lambda row: f"{row[1].coverage * 100:.0f}", "1"),
    ]
    title = f"{found.hardware_id}: fitted classes, with 90 % intervals; what has none is assumed"
    console().print(table(fitted, shown, title=title))
    assumed = sum(not each.measured for each in found.classes.values())
    console().print(
        f"{assumed} more class and dtype pairs hold assumed parameters; "
        f"host: {found.host_s_per_kernel * 1e6:.1f} us per kernel "
        f"({found.notes.get('host_s_per_kernel', '')})"
    )
    for warning in found.warnings:
        console().print(f"- {warning}")
    console().print(f"written to {out}")


def _interval(each: ClassParameters, name: str, factor: float, digits: int) -> str:
    """Format a parameter with its 90 % interval."""
    parameter = each.parameters[name]
    text = f"{parameter.value * factor:.{digits}f}"
    if parameter.low is None or parameter.high is None:
        return text
    return f"{text} ({parameter.low * factor:.{digits}f}-{parameter.high * factor:.{digits}f})"
