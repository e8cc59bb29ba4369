"""`lossprobe.score`: from paths or objects to a stored run, as the command finds or makes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeGuard

from lossprobe.arguments import IN_MEMORY, as_path, as_paths, is_path, wrong_type
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.spec import CheckpointSpec, Opener
from lossprobe.errors import UsageError
from lossprobe.options.declare import options_of
from lossprobe.options.given import read_option
from lossprobe.options.kinds import nearest
from lossprobe.passes.engine_options import LOCAL, EngineOptions, refuse_unused
from lossprobe.passes.known_checkpoint import open_when_needed
from lossprobe.passes.known_text import KnownText
from lossprobe.passes.order import refuse_checkpoints_as_texts, refuse_swapped, refuse_text_as_checkpoint
from lossprobe.passes.rendered import both_sides as sides_of_pairs
from lossprobe.passes.score import PassResult, Progress
from lossprobe.passes.score import score as score_pass
from lossprobe.plan.options import ScoreOptions
from lossprobe.python.runs import open_run
from lossprobe.run.twin import folder_of
from lossprobe.text.documents import Source, open_text
from lossprobe.text.options import TextOptions

PathLike = str | os.PathLike[str]
GivenOptions = tuple[ScoreOptions | None, LoadOptions | None, TextOptions | None, EngineOptions | None]


def score(  # noqa: PLR0913 - what is scored and where it is stored
    checkpoint: Checkpoint | PathLike,
    source: Source | PathLike | Sequence[PathLike],
    options: ScoreOptions | None = None,
    *,
    output: PathLike | None = None,
    overwrite: bool = False,
    both_sides: bool = False,
    progress: Progress | None = None,
    load_options: LoadOptions | None = None,
    text_options: TextOptions | None = None,
    engine_options: EngineOptions | None = None,
    **choices: Any,
) -> PassResult:
    """Return the run of a checkpoint over a text, scoring only what is not stored yet.

    Args:
        checkpoint: the path of a checkpoint, or one from `open_checkpoint`, or a `CallableCheckpoint`.
        source: a path or several, or a text from `open_text`, or a `StringSource`.
        options: windows, BOS, batch size, unknown characters.
        output: run directory; None for one under `.lossprobe/` in the working folder, named by what the run is.
        overwrite: replace a run with other settings that stands at `output`.
        both_sides: of pairs, score the rejected answers too, as `view("preferences", …)` needs; else the chosen ones.
        progress: called with the tokens scored so far and the tokens to score.
        load_options: how the checkpoint of a path is opened.
        text_options: how files of paths become documents.
        engine_options: who scores the checkpoint of a path: this process, or the workers of a Ray cluster.
        choices: single options by name (`context=128`, `dtype="bfloat16"`, `split_documents="line"`): the fields of
            `ScoreOptions`, `LoadOptions`, `TextOptions` and `EngineOptions`. They stand above those of the option
            objects.

    Raises:
        WrongTypeError: an argument is of a type that is not named above.
        LossprobeError: see `errors`; what was finished before is kept, and scoring again resumes.

    Examples:
        >>> run = score("my-model", "data.txt", context=128).run  # doctest: +SKIP
    """
    folder = None if output is None else folder_of(as_path("output", "the folder of a run", output))
    given = (options, load_options, text_options, engine_options)
    with opened_arguments(checkpoint, source, given, choices) as (model, text, scoring):
        if both_sides:
            text = sides_of_pairs(KnownText(text), model, scoring.score)
        scored = score_pass(model, text, scoring, output=folder, overwrite=overwrite, progress=progress)
    run = open_run(scored.run.path)
    return replace(scored, run=run, notices=tuple(dict.fromkeys((*model.facts.notices, *text.notices))))


@contextmanager
def opened_arguments(
    checkpoint: Checkpoint | PathLike,
    source: Source | PathLike | Sequence[PathLike],
    given: GivenOptions,
    choices: dict[str, Any],
) -> Iterator[tuple[Checkpoint, Source, ScoreOptions]]:
    """Yield the checkpoint, the text and the options of a pass; the workers of Ray end with the block.

    Args:
        checkpoint: as for `score`.
        source: as for `score`.
        given: the objects of options that `score` takes.
        choices: as for `score`.

    Raises:
        LossprobeError: as `score`.
    """
    options, load_options, text_options, engine_options = given
    scoring = chosen("options", ScoreOptions, options, choices)
    loading = chosen("load_options", LoadOptions, load_options, choices)
    reading = chosen("text_options", TextOptions, text_options, choices)
    working = chosen("engine_options", EngineOptions, engine_options, choices)
    refuse_unknown(choices)
    if is_path(checkpoint):
        _check_places(as_path("checkpoint", "a path", checkpoint), source, reading)
    text = _text(source, reading)
    if (text_options is not None or _names(TextOptions) & choices.keys()) and text is source:
        raise UsageError("argument.unknown", "`text_options` and its fields are for the paths of texts")
    with _opener(working, text.notices.append) as opener:
        model = _model(checkpoint, loading, opener)
        others = _names(LoadOptions) | _names(EngineOptions)
        if (load_options or engine_options or others & choices.keys()) and model is checkpoint:
            what = "`load_options`, `engine_options` and their fields are for the path of a checkpoint"
            raise UsageError("argument.unknown", what)
        yield model, text, scoring


@contextmanager
def _opener(options: EngineOptions, tell: Callable[[str], None]) -> Iterator[Opener]:
    """Yield what opens checkpoints where the options say; the workers of Ray end with the block."""
    refuse_unused(options)
    if options.tensor_parallel_size > 1:
        from lossprobe.passes.ranks.opener import RankOpener
        from lossprobe.passes.ranks.session import RankSession

        with closing(RankSession(options.tensor_parallel_size)) as ranks:
            yield RankOpener(ranks)
        return
    if options.engine == LOCAL:
        yield Opener()
        return
    from lossprobe.passes.ray.opener import RayOpener
    from lossprobe.passes.ray.session import RaySession

    with closing(RaySession(options, tell)) as session:
        yield RayOpener(session)


def chosen(name: str, holder: type[Any], given: object, choices: dict[str, Any]) -> Any:
    """Return an option object with the single options that belong to it.

    Args:
        name: what the argument is called.
        holder: its dataclass.
        given: the option object, or None for the defaults.
        choices: single options by name.

    Raises:
        WrongTypeError: `given` is something else, or an option has a value of another type.
    """
    if given is not None and not isinstance(given, holder):
        raise wrong_type(name, f"lossprobe.{holder.__name__}", given, "single options go by name: context=128")
    declared = options_of(holder)
    values = {key: _value(key, declared[key].kind, choices[key], holder) for key in choices if key in declared}
    return replace(given or holder(), **values)


def _value(name: str, kind: Any, value: object, holder: type[Any]) -> object:
    """Return the value of an option, as the audit file would read it; None where that is the default."""
    default = next(field.default for field in fields(holder) if field.name == name)
    if value is None and default is None:
        return None
    if is_path(value):
        value = os.fspath(value)  # type: ignore[call-overload]  # `is_path` has seen to it
    return read_option(name, kind, value)


def refuse_unknown(choices: dict[str, Any], known: Sequence[str] = ()) -> None:
    """Refuse keyword arguments that no option is called by.

    Args:
        choices: the keyword arguments.
        known: the names that there are; none for those of `score`.

    Raises:
        UsageError: one is not known.
    """
    names = known or sorted(set().union(*map(_names, (ScoreOptions, LoadOptions, TextOptions, EngineOptions))))
    for name in choices:
        if name not in names:
            hint = nearest(name, names) or f"there are {', '.join(names)}"
            raise UsageError("argument.unknown", f"`{name}` is no argument", hint=hint)


def _names(holder: type[Any]) -> set[str]:
    return set(options_of(holder))


def _check_places(checkpoint: Path, source: object, reading: TextOptions) -> None:
    """Refuse a text in the place of the checkpoint, and a checkpoint in the place of the text."""
    given = source if isinstance(source, (list, tuple)) else [source]
    texts = [as_path("source", "a path", path) for path in given if is_path(path)]
    refuse_swapped([checkpoint], texts)
    if checkpoint.exists():
        refuse_text_as_checkpoint(checkpoint)
    chosen = reading.skip_bad or reading.include or reading.exclude
    refuse_checkpoints_as_texts([text for text in texts if not (chosen and text.is_dir())])


def _model(checkpoint: object, options: LoadOptions, opener: Opener) -> Checkpoint:
    """Return a checkpoint; that of a path is loaded only when a model is needed."""
    if is_path(checkpoint):
        path = as_path("checkpoint", "a path", checkpoint)
        return open_when_needed(CheckpointSpec(path, options), opener)
    if _is_checkpoint(checkpoint):
        from lossprobe.checkpoint.model.vector_math import settle_vector_math  # imports torch

        settle_vector_math()  # an object of a user's own class was not opened by lossprobe
        return checkpoint
    live = callable(checkpoint) or hasattr(checkpoint, "forward")
    hint = "a model in memory: lossprobe.CallableCheckpoint(function, tokenizer, …)" if live else None
    raise wrong_type("checkpoint", "the path of a checkpoint or a checkpoint", checkpoint, hint)


def _is_checkpoint(value: object) -> TypeGuard[Checkpoint]:
    return all(hasattr(value, name) for name in ("facts", "tokenizer", "hidden", "logits"))


def _text(source: object, options: TextOptions) -> Source:
    if _is_source(source):
        return source
    if not is_path(source) and not isinstance(source, (list, tuple)):
        raise wrong_type("source", "the path of a text, several, or a text", source, IN_MEMORY)
    paths = as_paths("source", source)
    try:
        return open_text(paths, options)
    except UsageError as error:
        if error.id != "text.missing":
            raise
        raise UsageError(error.id, error.reason, hint=IN_MEMORY, subject=error.subject) from None


def _is_source(value: object) -> TypeGuard[Source]:
    return all(hasattr(value, name) for name in ("name", "notices", "documents"))
