"""The command line `vlm-roofline`: one module per command, imported only when that command is called.

`vlm-roofline estimate` must answer in under half a second, so nothing here imports torch,
transformers, pandas or matplotlib; a command module imports what it needs when it runs.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from hardware_specs.errors import VlmRooflineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer

#: command -> the module that registers it.
COMMANDS = {
    "estimate": "profiling.cli.estimate",
    "sweep": "profiling.cli.sweep",
    "break-even": "profiling.cli.break_even",
    "frontier": "profiling.cli.frontier",
    "plot": "profiling.cli.plot",
    "reproduce": "profiling.cli.reproduce",
    "models": "profiling.cli.models",
    "specs": "profiling.cli.specs",
    "methods": "profiling.cli.methods",
    "generate": "profiling.cli.generate",
    "profile": "profiling.cli.profile",
    "measurements": "profiling.cli.measurements",
    "count": "profiling.cli.count",
    "calibrate": "profiling.cli.calibrate",
    "reconcile": "profiling.cli.reconcile",
    "report": "profiling.cli.report",
    "loop": "profiling.cli.loop",
}


def build_app(argv: Sequence[str]) -> typer.Typer:
    """Return the application holding the command that `argv` names, or all of them.

    Args:
        argv: the arguments after the program's name.
    """
    import typer

    app = typer.Typer(
        name="vlm-roofline",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        add_completion=False,
    )
    # The callback keeps a lone registered command addressable by its name.
    app.callback(
        help="What visual tokens really cost: estimates, measurements, and the gap explained."
    )(lambda: None)
    word = next((word for word in argv if not word.startswith("-")), "")
    modules = [COMMANDS[word]] if word in COMMANDS else list(dict.fromkeys(COMMANDS.values()))
    for module in modules:
        import_module(module).register(app)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 after Ctrl-C.

    Args:
        argv: the arguments after the program's name; None takes them from `sys.argv`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        from importlib.metadata import version

        sys.stdout.write(f"vlm-roofline {version('vlm-roofline')}\n")
        return 0
    try:
        code = build_app(arguments)(arguments, prog_name="vlm-roofline", standalone_mode=True)
    except SystemExit as exit_:
        code = exit_.code
    except VlmRooflineError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; everything written so far is valid\n")
        return 130
    except BrokenPipeError:
        # The reader (head, less) has left: the output is not wanted any more.
        sys.stderr.close()
        return 0
    return code if isinstance(code, int) else 0
