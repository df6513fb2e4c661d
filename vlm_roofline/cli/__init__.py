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
    "estimate": "vlm_roofline.cli.estimate",
    "sweep": "vlm_roofline.cli.sweep",
    "break-even": "vlm_roofline.cli.break_even",
    "frontier": "vlm_roofline.cli.frontier",
    "plot": "vlm_roofline.cli.plot",
    "reproduce": "vlm_roofline.cli.reproduce",
    "models": "vlm_roofline.cli.models",
    "specs": "vlm_roofline.cli.specs",
    "methods": "vlm_roofline.cli.methods",
    "generate": "vlm_roofline.cli.generate",
    "profile": "vlm_roofline.cli.profile",
    "measurements": "vlm_roofline.cli.measurements",
    "count": "vlm_roofline.cli.count",
    "calibrate": "vlm_roofline.cli.calibrate",
    "reconcile": "vlm_roofline.cli.reconcile",
    "report": "vlm_roofline.cli.report",
    "loop": "vlm_roofline.cli.loop",
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
    from vlm_roofline.cli.console import damage_told, harmless

    try:
        with damage_told():
            code = build_app(arguments)(arguments, prog_name="vlm-roofline", standalone_mode=True)
    except SystemExit as exit_:
        code = exit_.code
    except VlmRooflineError as error:
        sys.stderr.write(harmless(f"error: {' '.join(str(error).split())}\n"))
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; everything written so far is valid\n")
        return 130
    except BrokenPipeError:
        # The reader (head, less) has left: the output is not wanted any more.
        sys.stderr.close()
        return 0
    return code if isinstance(code, int) else 0
