"""Opens checkpoints in the workers of a Ray session, and scores with them."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import replace
from operator import length_hint

from lossprobe.checkpoint.spec import CheckpointSpec, Opener
from lossprobe.errors import UsageError
from lossprobe.passes.elsewhere import ElsewhereCheckpoint, absolute
from lossprobe.passes.engines import Advance, Part, PartOptions
from lossprobe.passes.ray.session import RaySession, scores_of
from lossprobe.passes.worker import Model, Opened, Pass
from lossprobe.plan.part_scores import PartScores


class RayOpener(Opener):
    """Opens checkpoints in the workers of a session; this process holds no weights.

    Args:
        session: the session.
        keep: most models in memory at once, in each worker.
        share_base: as in `Opener`.
    """

    def __init__(self, session: RaySession, keep: int = 1, *, share_base: bool = False) -> None:
        super().__init__(keep, share_base=share_base)
        self._session = session

    def placed(self, spec: CheckpointSpec) -> CheckpointSpec:
        """Return a checkpoint with "auto" replaced by the device that the workers have.

        Raises:
            UsageError: one GPU of several is named: a worker sees only its own, as the first.
        """
        device = spec.options.device
        if device.startswith("cuda:"):
            raise UsageError(
                "ray.device", f"`device` {device}: Ray gives each worker its GPU", hint="use `device` cuda"
            )
        if device == "auto":
            self._session.begin(device)
            spec = replace(spec, options=replace(spec.options, device="cuda" if self._session.gpus else "cpu"))
        return spec

    def has_open(self, spec: CheckpointSpec) -> bool:
        """Return False: what the workers have in memory is known only to them."""
        del spec
        return False

    def open(self, spec: CheckpointSpec) -> RayCheckpoint:
        """Return a checkpoint that a worker has opened.

        Raises:
            LossprobeError: as in `detect.open_checkpoint`, or Ray cannot be reached.
        """
        self._session.begin(spec.options.device)
        model = Model(absolute(spec), self.keep, self.share_base)
        opened: Opened = self._session.ask("open", model)
        return RayCheckpoint(self._session, model, opened)


class RayCheckpoint(ElsewhereCheckpoint):
    """A checkpoint whose model the workers of a session hold.

    Args:
        session: the session.
        model: what they open.
        opened: what the first of them found.
    """

    def __init__(self, session: RaySession, model: Model, opened: Opened) -> None:
        what = "`engine` ray: this command runs the model in its own process"
        hint = "leave `engine` out, or score with it first and look at the run"
        super().__init__(opened, UsageError("ray.local", what, hint=hint))
        self._session, self._model, self._agreed = session, model, opened.agreed

    def shares_prefix(self) -> bool:
        """Return whether the model can go on from a prompt that it has read once."""
        return bool(self._session.ask("shares prefix", self._model))

    def engine(self, bos_id: int | None, *, own_tokenizer: bool, shared_prefix: bool) -> RayEngine:
        """Return the engine that scores with this checkpoint; arguments as in `worker.Pass`."""
        about = self._model, bos_id, own_tokenizer, shared_prefix
        return RayEngine(self._session, about, self._agreed)


class RayEngine:
    """An engine whose parts the workers of a session score.

    Args:
        session: the session.
        about: the first arguments of `worker.Pass`.
        agreed: what every worker must find when it opens the checkpoint.
    """

    def __init__(
        self, session: RaySession, about: tuple[Model, int | None, bool, bool], agreed: dict[str, str]
    ) -> None:
        self._session, self._about, self._agreed = session, about, agreed

    def score(self, parts: Iterable[Part], options: PartOptions, advance: Advance) -> Iterator[tuple[Part, PartScores]]:
        """Yield every part with its scores, in the order in which they are scored.

        Raises:
            LossprobeError: as `engines.Engine.score`; or too many workers were lost, or one is of another kind.
        """
        del advance  # a part counts when its scores are stored
        held: dict[int, Part] = {}

        def pickled() -> Iterator[tuple[int, bytes]]:
            for part in parts:
                held[part.index] = part
                yield part.index, pickle.dumps(part, pickle.HIGHEST_PROTOCOL)

        same = pickle.dumps(Pass(*self._about, options), pickle.HIGHEST_PROTOCOL)
        opening = pickle.dumps(self._about[0], pickle.HIGHEST_PROTOCOL)
        work = length_hint(parts), opening, self._agreed, same
        for index, scores in scores_of(self._session, work, pickled()):
            yield held.pop(index), scores
