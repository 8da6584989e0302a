"""The command line: it parses, calls one library function, and renders what comes back.

Each subcommand is a module with ``add_arguments(parser)`` and ``run(args) -> exit code``, and
imports nothing heavy before `run`.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

import deploykit
from deploykit.cli.guard import guarded
from deploykit.cli.streams import failure_of_stdout, prepare_streams
from deploykit.errors import EXIT_USER, UserError
from deploykit.limits import described_limits, limits_set, parse_limits
from deploykit.own_process import claim_process

#: Subcommand → (module, what it does).
COMMANDS = {
    "convert": ("deploykit.cli.convert", "take a model to a bundle of verified artefacts"),
    "bisect": ("deploykit.cli.bisect", "find the first layer that a runtime computes wrongly"),
    "verify": ("deploykit.cli.verify", "verify a bundle again on this machine's runtimes"),
    "evaluate": ("deploykit.cli.evaluate", "top-1 of every artefact of a bundle on labelled data"),
    "reproduce": ("deploykit.cli.reproduce", "make a bundle again from its source, and compare"),
    "run": ("deploykit.cli.run", "name what is on images, by every artefact and runner"),
    "profile": ("deploykit.cli.profile", "count (and measure) what each layer of a model costs"),
    "analyze": ("deploykit.cli.analyze", "say which layers lose what in int8, and what to do"),
    "lint": ("deploykit.cli.lint", "find what makes a model slower than its FLOPs say"),
    "inspect": ("deploykit.cli.inspect", "print a model's stage, or an artefact, in words"),
    "targets": ("deploykit.cli.targets", "list targets: precisions, options, runners, ops"),
    "doctor": ("deploykit.cli.doctor", "say what is missing here, and what installs it"),
}

#: What other packages add: an entry point's name is the subcommand, its value the module, which has
#: a SUMMARY beside `add_arguments` and `run`.
ENTRY_POINT_GROUP = "deploykit.commands"

_EXIT_CODES = """\
exit codes:
  0    done, and parity holds; a verdict may be WARN (--fail-on warning makes that 1)
  1    parity failed, or a runtime crashed; what was written says so
  2    something given cannot be used; nothing was written
  3    a target does not support the model; of several targets, the others are written
  70   a bug of deploykit; please report it
  130  interrupted; nothing was written
"""


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser.

    Args:
        command: Fill in the arguments of this subcommand only; None for all of them.
    """
    parser = argparse.ArgumentParser(
        prog="deploykit",
        description="Takes a trained compact vision model to the phone.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"deploykit {deploykit.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in _commands(command).items():
        sub = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument(
            "--traceback", action="store_true", help="show where a bug of deploykit came from"
        )
        sub.add_argument(
            "--max",
            action="append",
            default=[],
            metavar="NAME=N",
            help="refuse files beyond another limit, e.g. nodes=200000 or file_bytes=8G (repeat); "
            f"the limits: {', '.join(described_limits())}",
        )
        if command is None or command == name:
            import_module(module).add_arguments(sub)
    return parser


def _commands(wanted: str | None) -> dict[str, tuple[str, str]]:
    """Subcommand → (module, what it does); those of other packages unless one of ours is wanted."""
    if wanted in COMMANDS:
        return COMMANDS
    from importlib.metadata import entry_points

    added = {e.name: e.value for e in entry_points(group=ENTRY_POINT_GROUP)}
    return COMMANDS | {
        name: (module, str(import_module(module).SUMMARY)) for name, module in sorted(added.items())
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Whatever is raised ends in words on standard error and in an exit code (`deploykit.cli.guard`).

    Args:
        argv: The arguments; None for those of the process, whose streams and signals it then takes
            charge of.
    """
    if argv is None:
        claim_process()
        prepare_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    code = guarded(lambda: _run(arguments), show_traceback="--traceback" in arguments)
    failure = failure_of_stdout()
    if failure is not None:
        print(f"error: cannot write to standard output: {failure.strerror}", file=sys.stderr)
        code = code or EXIT_USER
    return code


def _run(arguments: list[str]) -> int:
    if not arguments:
        arguments = ["--help"]
    # Only the subcommand that is asked for is imported.
    command = next((a for a in arguments if not a.startswith("-")), "")
    as_json = "--json" in arguments
    try:
        parser = build_parser(command)
        args, unknown = parser.parse_known_args(arguments)
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}{_nearest(parser, unknown)}")
    except SystemExit as error:
        if as_json and error.code:
            _print_error(UserError("the arguments cannot be used: see standard error"))
        raise
    _silence_numpy()
    try:
        with limits_set(parse_limits(args.max)):
            code: int = import_module(_commands(args.command)[args.command][0]).run(args)
    except (Exception, KeyboardInterrupt) as error:
        if as_json and not isinstance(error, BrokenPipeError):
            _print_error(error)
        raise
    return code


def _nearest(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> str:
    """The flags that were probably meant, in words; empty if none is near."""
    known = {
        flag
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for sub in action.choices.values()
        for flag in sub._option_string_actions
    }
    flags = [word.partition("=")[0] for word in unknown if word.startswith("--")]
    near = [match for flag in flags for match in get_close_matches(flag, sorted(known), 1)]
    return f" (did you mean {', '.join(near)}?)" if near else ""


def _print_error(error: BaseException) -> None:
    """``--json`` prints a document in every case: here, that of an error."""
    from deploykit.report.error_json import error_to_json

    print(error_to_json(error), end="", flush=True)


def _silence_numpy() -> None:
    """What overflows or divides by zero is found in results and reported in words, not by numpy."""
    if not sys.warnoptions:  # python -W shows them
        warnings.simplefilter("ignore", RuntimeWarning)
