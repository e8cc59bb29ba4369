"""Opens checkpoints in the processes that hold each of them together, and scores with them."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterable, Iterator

from lossprobe.checkpoint.options import ALWAYS
from lossprobe.checkpoint.spec import CheckpointSpec, Opener
from lossprobe.errors import CheckpointError, UsageError
from lossprobe.passes.elsewhere import ElsewhereCheckpoint, absolute
from lossprobe.passes.engines import Advance, Part, PartOptions
from lossprobe.passes.ranks.session import RankSession
from lossprobe.passes.worker import Model, Opened, Pass
from lossprobe.plan.part_scores import PartScores, joined
from lossprobe.units import visible

AHEAD = 1  # parts that the processes get before the scores of one are read


class RankOpener(Opener):
    """Opens checkpoints in the processes of a session; this process holds no weights.

    Args:
        session: the session.
    """

    def __init__(self, session: RankSession) -> None:
        super().__init__()
        self._session = session

    def placed(self, spec: CheckpointSpec) -> CheckpointSpec:
        """Return a checkpoint with "auto" replaced by the device that torch finds.

        Raises:
            UsageError: the device is one GPU of several, or MPS, or the weights are to be read layer by layer.
        """
        spec = spec.on_this_machine()
        device = spec.options.device
        if device not in ("cpu", "cuda"):
            what = f"`device` {visible(device, 20)}: with `tensor_parallel_size` each process takes a GPU of its own"
            hint = "use `device` cuda; CUDA_VISIBLE_DEVICES says which GPUs there are"
            raise UsageError("tensor_parallel.devices", what, hint=hint)
        _refuse_streamed(spec)
        return spec

    def has_open(self, spec: CheckpointSpec) -> bool:
        """Return False: what the processes have in memory is known only to them."""
        del spec
        return False

    def open(self, spec: CheckpointSpec) -> RankCheckpoint:
        """Return a checkpoint that the processes have opened together.

        Raises:
            UsageError: its weights are to be read layer by layer.
            CheckpointError: it cannot be divided, or the processes found different things.
            LossprobeError: as in `detect.open_checkpoint`.
        """
        _refuse_streamed(spec)
        self._session.begin(spec.options.device)
        model = Model(absolute(spec))
        every: list[Opened] = self._session.ask("open", model)
        refuse_unlike(every)
        return RankCheckpoint(self._session, model, every[0])


def _refuse_streamed(spec: CheckpointSpec) -> None:
    if spec.options.stream_weights == ALWAYS:
        what = "`tensor_parallel_size` keeps the weights in memory, `stream_weights` always reads them layer by layer"
        raise UsageError("tensor_parallel.streamed", what, hint="leave one of the two out")


def refuse_unlike(every: list[Opened]) -> None:
    """Refuse a checkpoint in which the processes found different things.

    Raises:
        CheckpointError: `tensor_parallel.disagree`: they did; it names the first difference.
    """
    first = every[0].agreed
    for rank, each in enumerate(every[1:], start=2):
        differing = [name for name in first if each.agreed.get(name) != first[name]]
        if differing:
            name = differing[0]
            ours, theirs = (visible(str(one.get(name)), 60) for one in (first, each.agreed))
            raise CheckpointError(
                "tensor_parallel.disagree",
                f"{visible(every[0].facts.name, 80)}: {name} is {ours} in process 1 and {theirs} in process {rank}",
                hint="a file may have changed while it was read, or the GPUs are of several kinds",
            )


class RankCheckpoint(ElsewhereCheckpoint):
    """A checkpoint whose model the processes of a session hold together.

    Args:
        session: the session.
        model: what they open.
        opened: what the first of them found.
    """

    def __init__(self, session: RankSession, model: Model, opened: Opened) -> None:
        what = f"`tensor_parallel_size` {session.size}: this command runs the model in its own process"
        hint = "leave `tensor_parallel_size` out, or score with it first and look at the run"
        super().__init__(opened, UsageError("tensor_parallel.local", what, hint=hint))
        self._session, self._model = session, model

    def shares_prefix(self) -> bool:
        """Return whether the model can go on from a prompt that it has read once."""
        return all(self._session.ask("shares prefix", self._model))

    def engine(self, bos_id: int | None, *, own_tokenizer: bool, shared_prefix: bool) -> RankEngine:
        """Return the engine that scores with this checkpoint; arguments as in `worker.Pass`."""
        return RankEngine(self._session, (self._model, bos_id, own_tokenizer, shared_prefix))


class RankEngine:
    """An engine whose parts the processes of a session score together: each some rows of every part.

    Args:
        session: the session.
        about: the first arguments of `worker.Pass`.
    """

    def __init__(self, session: RankSession, about: tuple[Model, int | None, bool, bool]) -> None:
        self._session, self._about = session, about

    def score(self, parts: Iterable[Part], options: PartOptions, advance: Advance) -> Iterator[tuple[Part, PartScores]]:
        """Yield every part with its scores, in order.

        Raises:
            LossprobeError: as `engines.Engine.score`; or a process was lost.
        """
        del advance  # a part counts when its scores are stored
        same = pickle.dumps(Pass(*self._about, options), pickle.HIGHEST_PROTOCOL)
        sent: deque[Part] = deque()
        for part in parts:
            self._session.send("score", same, pickle.dumps(part, pickle.HIGHEST_PROTOCOL))
            sent.append(part)
            if len(sent) > AHEAD:
                yield sent.popleft(), joined(self._session.answers())
        while sent:
            yield sent.popleft(), joined(self._session.answers())
