"""The command line: it parses, calls one library function, and renders what comes back.

Each subcommand is a module with ``add_arguments(parser)`` and ``run(args) -> exit code``, and
imports nothing heavy before `run`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

import deploykit
from deploykit.errors import EXIT_INTERRUPTED, EXIT_USER, DeploykitError

#: Subcommand > (module, what it does).
COMMANDS = {
    "convert": ("deploykit.cli.convert", "take a model to a bundle of verified artefacts"),
    "verify": ("deploykit.cli.verify", "judge a bundle again on this machine's runtimes"),
    "evaluate": ("deploykit.cli.evaluate", "top-1 of every artefact of a bundle on labelled data"),
    "profile": ("deploykit.cli.profile", "count (and measure) what each layer of a model costs"),
    "lint": ("deploykit.cli.lint", "find what makes a model slower than its FLOPs say"),
    "inspect": ("deploykit.cli.inspect", "print a model's stage, or an artefact, in words"),
    "targets": ("deploykit.cli.targets", "list targets: precisions, options, runners, ops"),
    "doctor": ("deploykit.cli.doctor", "say what is missing here, and what installs it"),
    "zoo": ("deploykit.cli.zoo", "train and evaluate the small models of the examples"),
}

_EXIT_CODES = """\
exit codes:
  0    done, and parity holds
  1    parity failed, or a runtime crashed; what was written says so
  2    something given cannot be used; nothing was written
  3    a target cannot carry the model; of several targets, the others are written
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
    for name, (module, summary) in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if command is None or command == name:
            import_module(module).add_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Errors that deploykit raises on purpose end in their message and exit code; any other
    exception is a bug of ours and shows its traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Only the subcommand that is asked for is imported.
    command = next((a for a in arguments if not a.startswith("-")), "")
    args = build_parser(command).parse_args(arguments)
    module = import_module(COMMANDS[args.command][0])
    # A killed run unwinds like an interrupted one, so that temporary files are removed.
    previous = signal.signal(signal.SIGTERM, _raise_interrupt)
    try:
        code: int = module.run(args)
        sys.stdout.flush()
    except DeploykitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: no result was written; what was there before stays", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away; the interpreter must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_USER
    finally:
        signal.signal(signal.SIGTERM, previous)
    return code


def _raise_interrupt(*_: object) -> None:
    raise KeyboardInterrupt
