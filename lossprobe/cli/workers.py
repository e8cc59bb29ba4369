"""The workers of a command: none for a pass in this process, or processes or a session of Ray that end with it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lossprobe.cli.options import declared_options
from lossprobe.errors import UsageError
from lossprobe.options.declare import options_of
from lossprobe.options.kinds import BadValueError
from lossprobe.passes.engine_options import LOCAL, EngineOptions, refuse_unused
from lossprobe.report.talk import say

if TYPE_CHECKING:
    from lossprobe.checkpoint.spec import Opener
    from lossprobe.passes.ranks.session import RankSession
    from lossprobe.passes.ray.session import RaySession

# Keys of the sessions and of the options in a command's data.
SESSION, RANKS, CHOSEN = "lossprobe.ray", "lossprobe.ranks", "lossprobe.engine"
Command = TypeVar("Command", bound=Callable[..., Any])


def engine_options(command: Command) -> Command:
    """Add the options of `EngineOptions` to a command without the others of a pass; `chosen_engine` returns them."""

    @functools.wraps(command)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        chosen = EngineOptions(**{name: kwargs.pop(name) for name in options_of(EngineOptions)})
        click.get_current_context().find_root().meta[CHOSEN] = chosen
        return command(*args, **kwargs)

    return declared_options(EngineOptions)(gathered)  # type: ignore[return-value]


def chosen_engine() -> EngineOptions:
    """Return the options of a command with `engine_options`, or those of every other command: this process."""
    chosen: EngineOptions = click.get_current_context().find_root().meta.get(CHOSEN, EngineOptions())
    return chosen


def refuse_workers(options: EngineOptions, what: str) -> None:
    """Refuse workers, before anything is scored, for what runs the model in this process.

    Args:
        options: who scores.
        what: what does so, such as "--kl".

    Raises:
        UsageError: it is not this process.
    """
    if options.tensor_parallel_size > 1:
        hint = "leave `tensor_parallel_size` out, or score with it first"
        what = f"{what} runs the model in its own process, without `tensor_parallel_size`"
        raise UsageError("tensor_parallel.local", what, hint=hint)
    if options.engine != LOCAL:
        hint = f"leave `engine` out, or score with `engine` {options.engine} first"
        raise UsageError("ray.local", f"{what} runs the model in its own process, without `engine`", hint=hint)


def working_opener(options: EngineOptions, opener: Opener) -> Opener:
    """Return what opens checkpoints where the options say: `opener` itself, or one that lets workers open them.

    Raises:
        UsageError: an option of Ray is given without `--engine ray`.
        click.BadParameter: the address is none.
    """
    refuse_unused(options)
    if options.tensor_parallel_size > 1:
        from lossprobe.passes.ranks.opener import RankOpener

        return RankOpener(_ranks(options.tensor_parallel_size))
    if options.engine == LOCAL:
        return opener
    if options.ray_address is not None:
        try:
            options_of(EngineOptions)["ray_address"].kind.read(options.ray_address)
        except BadValueError as error:
            raise click.BadParameter(str(error), param_hint="--ray-address") from None
    from lossprobe.passes.ray.opener import RayOpener

    return RayOpener(_session(options), opener.keep, share_base=opener.share_base)


def _ranks(size: int) -> RankSession:
    """Return the processes of the running command that hold a model together; they end with it."""
    from lossprobe.passes.ranks.session import RankSession

    root = click.get_current_context().find_root()
    session: RankSession | None = root.meta.get(RANKS)
    if session is None:
        session = root.meta[RANKS] = RankSession(size)
        root.call_on_close(session.close)
    return session


def _session(options: EngineOptions) -> RaySession:
    """Return the session of the running command, which ends with it."""
    from lossprobe.passes.ray.session import RaySession

    root = click.get_current_context().find_root()
    session: RaySession | None = root.meta.get(SESSION)
    if session is None:
        session = root.meta[SESSION] = RaySession(options, say)
        root.call_on_close(session.close)
    return session
