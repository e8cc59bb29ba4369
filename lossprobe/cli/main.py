"""The command `lossprobe` with all its subcommands; turns errors into a line on standard error and an exit code."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

import click

from lossprobe import __version__
from lossprobe.cli.commands import GROUPS, Commands
from lossprobe.cli.imports import RAISE, address_space, checked_imports
from lossprobe.cli.mistakes import meant
from lossprobe.cli.process import call_with_room, collect_less_often, leave
from lossprobe.cli.streams import occupy_closed, prepared
from lossprobe.cli.wording import with_options
from lossprobe.compiling import tell_of_compiling
from lossprobe.environment import settle_environment
from lossprobe.errors import LossprobeError, OutputError, ResourceError, UsageError
from lossprobe.isolation import DELETED, ELSEWHERE, temporary_folder, working_folder_is_there
from lossprobe.report.talk import say
from lossprobe.units import visible

CONTEXT = {
    "auto_envvar_prefix": "LOSSPROBE",
    "help_option_names": ["-h", "--help"],
    "max_content_width": 80,
    "show_default": True,
    # lm-eval spells options with underscores; both spellings work.
    "token_normalize_func": lambda word: word.replace("_", "-"),
}
COMPILING = "compiling loops for this CPU, about 20 s the first time"
OUT_OF_MEMORY = re.compile(
    r"(?i)failed to map segment|(cannot|can't|can not|unable to) allocate|bad_alloc|start new thread|out of memory"
)
UNREACHABLE = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP)  # raised by `Path.exists`
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Terminated(BaseException):
    """The process has received SIGTERM."""


class Groups(click.Group):
    """A group of commands whose help lists them under headings."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click calls it
        """Write the commands of each of `GROUPS`."""
        width = max(len(name) for name in self.commands)
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{width}}", self.commands[name].get_short_help_str(80)) for name in names])


@click.group(cls=Groups, commands=Commands(), context_settings=CONTEXT)
@click.version_option(__version__, prog_name="lossprobe")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def cli() -> None:
    """Profile a language model's loss: score once, then ask the stored run.

    \b
      lossprobe tokens my-model data.txt   score a text, show its tokens
      lossprobe positions --plot           loss by context, from the same run
      lossprobe compare old new data.txt   how much two models differ
      lossprobe audit                      pass or fail, in CI
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the documented code."""
    if "_LOSSPROBE_COMPLETE" in os.environ:  # set by a shell that completes a command line
        cli.main(prog_name="lossprobe")
    occupy_closed()
    collect_less_often()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = call_with_room(run, words)
    except SystemError:  # Python 3.11 has lost a MemoryError once in some hundred commands below `ulimit -v`
        limit = address_space()
        if limit is None:
            raise
        text = f"out of memory: {limit >> 20} MiB of address space are too few"
        code = _report(Failure(ResourceError.exit_code, "memory.limit", text, RAISE), as_json="--json" in words)
    leave(code)


def run(arguments: list[str]) -> int:
    """Run the command line and return the exit code; errors become one line on standard error."""
    with prepared():
        if sys.stdout is None:  # closed by the shell, as by >&-
            return _report(Failure(OutputError.exit_code, "output.closed", "standard output is closed"), as_json=False)
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    debug = "--debug" in arguments
    arguments = [word for word in arguments if word != "--debug"] or ["--help"]
    received: list[int] = []
    previous = _on_sigterm(received)
    unused = settle_environment()
    try:
        # Not click's own `main`, which turns a closed pipe into exit code 1.
        with (
            checked_imports(),
            tell_of_compiling(_say_compiling),
            cli.make_context("lossprobe", arguments, obj=unused) as context,
        ):
            cli.invoke(context)
        sys.stdout.flush()  # so that a closed pipe or a full disk raises here and not at exit
    except click.exceptions.Exit as error:
        return error.exit_code
    except BrokenPipeError:
        return _closed_pipe()
    except (Exception, KeyboardInterrupt, Terminated) as error:  # noqa: BLE001 - the last resort, see failure_of
        if debug:
            traceback.print_exc()
        return _report(failure_of(error, terminated=bool(received)), as_json="--json" in arguments)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _say_compiling() -> None:
    """Say that loops are compiled, unless the command is to be quiet."""
    context = click.get_current_context(silent=True)
    if context is None or not context.params.get("quiet"):
        say(COMPILING)


@dataclass(frozen=True)
class Failure:
    """How a command fails: exit code, error id, message in one line, a hint or None, and further faults, one a line."""

    code: int
    id: str
    message: str
    hint: str | None = None
    details: tuple[str, ...] = ()


def failure_of(error: BaseException, *, terminated: bool = False) -> Failure:
    """Return the failure for an exception; an unexpected exception is an internal error, exit code 1.

    `terminated` says that SIGTERM was received: a query that it stops raises a KeyboardInterrupt.
    """
    match error:
        case LossprobeError():
            hint = error.hint and with_options(error.hint, cli)
            details = tuple(with_options(line, cli) for line in error.details)
            return Failure(error.exit_code, error.id, with_options(error.message, cli), hint, details)
        case click.UsageError():
            return _usage_failure(error)
        case click.Abort() | KeyboardInterrupt() | Terminated():
            return _stop(error, terminated=terminated or isinstance(error, Terminated))
        case MemoryError() | ImportError() | OSError() | RuntimeError() if _is_about_memory(error):
            return Failure(ResourceError.exit_code, "memory", "out of memory", "lower --batch-size or --context")
        case OSError() if error.errno in FULL:
            return Failure(OutputError.exit_code, "output.write", f"cannot be written: {error.strerror}")
        case OSError() if error.errno in UNREACHABLE and isinstance(error.filename, (str, bytes, os.PathLike)):
            shown = visible(os.fsdecode(error.filename), 100)
            return Failure(2, "path.unreachable", f"{shown}: cannot be reached: {error.strerror}")
        case FileNotFoundError() if temporary_folder() is None:
            hint = "set TMPDIR to a folder that can be written"
            return Failure(OutputError.exit_code, "output.no_folder", "there is no folder for temporary files", hint)
        case FileNotFoundError() if not working_folder_is_there():
            return Failure(UsageError.exit_code, "folder.deleted", DELETED, ELSEWHERE)
    text = visible(f"{type(error).__name__}: {error}", 300)
    return Failure(1, "internal", f"internal error: {text}", "run again with --debug, and please report it")


def _usage_failure(error: click.UsageError) -> Failure:
    """Return the failure for what click raises; a hint of ours takes the place of click's own guess."""
    hint = meant(error, cli)
    if hint and isinstance(error, click.NoSuchOption):
        error = click.NoSuchOption(error.option_name, ctx=error.ctx)  # without "Did you mean '--help'?"
    hint = hint or (f"see {error.ctx.command_path} --help" if error.ctx else None)
    return Failure(2, "usage", error.format_message() + _from_environment(error), hint)


def _stop(error: BaseException, *, terminated: bool) -> Failure:
    """Return the failure for a signal that stopped the process: SIGTERM, or else Ctrl-C."""
    if terminated:
        return Failure(143, "terminated", _stopped("terminated", error))
    return Failure(130, "interrupted", _stopped("interrupted", error))


def _stopped(how: str, error: BaseException) -> str:
    """Return the message for what stopped the process; a store has noted on it whether finished parts are kept."""
    kept = getattr(error, "__notes__", ())
    return "; ".join([how, *kept, "repeat the command to resume" if kept else "repeat the command"])


def _is_about_memory(error: BaseException) -> bool:
    """Return whether an error says that memory or threads ran out; libraries use different types and messages."""
    return isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)) is not None


def _from_environment(error: click.UsageError) -> str:
    """Return " (from NAME)" if a bad value came from an environment variable, else ""."""
    name = getattr(getattr(error, "param", None), "name", None)
    context = error.ctx
    if name is None or context is None or context.auto_envvar_prefix is None:
        return ""
    variable = f"{context.auto_envvar_prefix}_{name.upper()}"
    return f" (from {variable})" if variable in os.environ else ""


def _report(failure: Failure, *, as_json: bool) -> int:
    """Write a failure to standard error, with --json also as a JSON object in the last line; return its exit code."""
    sys.stderr.write(f"lossprobe: error[{failure.id}]: {visible(failure.message)}\n")
    sys.stderr.writelines(f"  {visible(line)}\n" for line in failure.details)
    if failure.hint:
        sys.stderr.write(f"hint: {visible(failure.hint)}\n")
    if as_json:
        content = {"type": "exit_error", "code": failure.code, "id": failure.id, "message": failure.message}
        content |= {"details": list(failure.details)} if failure.details else {}
        sys.stderr.write(json.dumps(content) + "\n")
    return failure.code


def _closed_pipe() -> int:
    """Redirect standard output to /dev/null, so that Python does not fail at exit, and return exit code 141."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def _on_sigterm(received: list[int]) -> Any:
    """Make SIGTERM raise `Terminated`, so that locks are released and the exit code is 143; return the old handler.

    Each signal is added to `received`.
    """

    def terminate(number: int, _frame: FrameType | None) -> NoReturn:
        received.append(number)
        raise Terminated

    return signal.signal(signal.SIGTERM, terminate)
