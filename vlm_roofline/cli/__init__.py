"""The command line `vlm-roofline`: one module per command, imported only when that command is called.

`vlm-roofline estimate` must answer in under half a second, so nothing here imports torch,
transformers, pandas or matplotlib; a command module imports what it needs when it runs.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidFileError, RankError, VlmRooflineError
from hardware_specs.showing import one_line
from vlm_roofline.cli.examples import complete_help

if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer

#: Seconds in which one process of several says why all of them end.
_PATIENCE_S = 10.0
#: Command -> its module here, in which it is the function of the module's name, or the commands of `group`.
COMMANDS = {
    name: name.replace("-", "_")
    for name in (
        "estimate", "compare", "sweep", "explore", "serve", "break-even", "frontier", "plot", "reproduce",
        "audit", "models", "specs", "methods", "generate", "profile", "measurements", "count", "calibrate",
        "reconcile", "report", "explain", "import", "loop", "campaign",
    )
} | {"import": "import_results"}  # fmt: skip


def build_app(argv: Sequence[str]) -> typer.Typer:
    """Return the application holding the command that `argv` names, or all of them."""
    import typer

    app = typer.Typer(
        name="vlm-roofline",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    shows_version = typer.Option(
        False, "--version", help="Print the version.", is_eager=True, callback=_version
    )

    # The callback keeps a lone registered command addressable by its name.
    @app.callback(
        help="What visual tokens really cost: estimates, measurements, and the gap explained."
    )
    def program(version: bool = shows_version) -> None: ...

    word = next((word for word in argv if not word.startswith("-")), "")
    for name in [word] if word in COMMANDS else COMMANDS:
        module = import_module(f"{__name__}.{COMMANDS[name]}")
        if hasattr(module, "group"):
            app.add_typer(module.group, name=name)
        else:
            app.command(name)(getattr(module, COMMANDS[name]))
    complete_help(app)
    return app


def _version(asked: bool) -> None:
    if asked:
        import typer

        sys.stdout.write(f"vlm-roofline {version('vlm-roofline')}\n")
        raise typer.Exit


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 after Ctrl-C.

    Whatever stops a command on purpose, and whatever the machine refuses it (memory, disk, files),
    is one line on stderr; a traceback is always a fault of this program.

    Args:
        argv: the arguments after the program's name; None takes them from `sys.argv`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_closed_streams()
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has left: the output is not wanted any more.
        _drop_output()
        return 0
    except (VlmRooflineError, MemoryError, RecursionError) as error:
        return _refuse(error, arguments)
    except OSError as error:
        if error.filename is None and error.errno == errno.ENOSPC:
            _drop_output()
        return _refuse(error, arguments)
    except ValueError as error:
        # int() and str() refuse integers of more digits than Python converts.
        if "integer string conversion" not in str(error):
            raise
        return _refuse("a number has too many digits", arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; everything written so far is valid\n")
        return 130
    return code


def _run(arguments: list[str]) -> int:
    import typer

    from vlm_roofline.cli.console import damage_told

    usage_error: type[Any] = typer.BadParameter.__bases__[0]
    try:
        with damage_told():
            code = build_app(arguments)(arguments, prog_name="vlm-roofline", standalone_mode=False)
    except usage_error as error:
        if "NoArgs" in type(error).__name__:
            error.show()  # the help of a group that was called without a command
            return int(error.exit_code)
        command = "vlm-roofline" if error.ctx is None else error.ctx.command_path
        return _refuse(f"{error.format_message()} (see `{command} --help`)", arguments)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except SystemExit as exit_:
        code = exit_.code
    return code if isinstance(code, int) else 0


def _refuse(reason: BaseException | str, arguments: Sequence[str]) -> int:
    """Say in one line why the command ended, and return its exit code.

    A program that asked for JSON gets the reason as a JSON document on stdout as well. Of several processes
    that torchrun started one says it. Before they have met, the others leave it to the first, with whose end
    torchrun ends them, and say it themselves where it does not.
    """
    if "RANK" in os.environ and not _speaks(reason):
        if isinstance(reason, RankError):
            return 2
        time.sleep(_PATIENCE_S)
    text = one_line(reason, 1900) or type(reason).__name__
    if isinstance(reason, VlmRooflineError) and not isinstance(reason, InvalidFileError):
        text = _as_typed(text, arguments)
    if isinstance(reason, MemoryError):
        text = f"out of memory: {text}"
    elif isinstance(reason, RecursionError):
        text = f"nested too deeply: {text}"
    if "--json" in arguments:
        from vlm_roofline.cli.console import print_json

        kind = "UsageError" if isinstance(reason, str) else type(reason).__name__
        with suppress(OSError):
            print_json({"schema_version": 1, "error": {"type": kind, "message": text}})
    sys.stderr.write(f"error: {text}\n")
    return 2


def _as_typed(text: str, arguments: Sequence[str]) -> str:
    """Name arguments as the command that was called does.

    >>> _as_typed("latency_s must be above 0, not -0.001", ["break-even", "x", "--latency-ms", "-1"])
    '--latency-ms must be above 0, not -1'
    """
    from typer.main import get_command

    from vlm_roofline.cli.as_typed import as_typed

    try:
        command: Any = get_command(build_app(arguments))
    except VlmRooflineError:
        return text  # it is what ended the command
    for word in arguments:
        command = getattr(command, "commands", {}).get(word, command)
    return as_typed(text, command, arguments)


def _speaks(reason: BaseException | str) -> bool:
    """Return whether this process says why the command ended."""
    from profiling.devices.ranks import place

    try:
        where = place()
    except VlmRooflineError:
        return True
    if isinstance(reason, RankError):
        return reason.speaks
    return where is None or where.rank == 0


def _open_closed_streams() -> None:
    """Give a stream that the shell closed (`>&-`) somewhere to write to."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115


def _drop_output() -> None:
    """Send what is still buffered for stdout nowhere, so that the interpreter's last flush holds."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
