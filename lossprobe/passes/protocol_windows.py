"""Plans the windows and the BOS of another tool for a model."""

from __future__ import annotations

from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.errors import UsageError
from lossprobe.passes.policy import DEFAULT_CONTEXT, refuse_beyond_hard_limit
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.protocol import Prefix, Protocol
from lossprobe.plan.protocols import PROTOCOLS
from lossprobe.plan.rows import WindowPolicy
from lossprobe.plan.windows import Layout

REQUIRED = {Prefix.BOS: "a BOS (without `bos` never)", Prefix.EOS: "an EOS", Prefix.BOS_OR_EOS: "a BOS or EOS"}
LONGEST_WHOLE = 16_384  # longest window without a limit of the model: the cost of attention grows with its square


def protocol_policy(protocol: str, checkpoint: Checkpoint, options: ScoreOptions) -> WindowPolicy:
    """Return the windows and the BOS of a protocol.

    Raises:
        UsageError: an option that the tool does not have, a context that the model cannot take, or no BOS to put first.
    """
    _refuse_options(protocol, checkpoint, options)
    about = PROTOCOLS[protocol]
    own = own_bos(protocol, checkpoint)
    prefix = None if options.bos == "never" and not about.second_bos else _prefix(protocol, checkpoint, own)
    length = options.context or _default_length(about, checkpoint)
    if length < about.shortest:
        text = f"`context` {length}: {protocol} needs windows of at least {about.shortest} tokens"
        raise UsageError("windows.context", text)
    stride = options.stride or (None if about.stride is None else min(about.stride, length))
    if stride is not None and stride > length:
        raise UsageError("windows.stride", f"`stride` {stride}: must lie between 1 and the context, {length}")
    layout = about.layout
    if layout is Layout.WHOLE and options.context is not None:
        layout = Layout.FIRST
    elif stride == length:
        layout = Layout.DISJOINT
    context = length - 1 if about.last_is_target else length
    if stride is None:
        stride = context if layout in (Layout.ROLLING, Layout.LAST_FULL) else context + 1
    second = own if about.second_bos and options.bos != "never" else None
    return WindowPolicy(context, stride, prefix, True, layout, second)


def _default_length(about: Protocol, checkpoint: Checkpoint) -> int:
    """Return the tokens of a window where `context` is not given."""
    facts = checkpoint.facts
    if about.layout is Layout.WHOLE:
        return facts.context_length if facts.hard_limit and facts.context_length is not None else LONGEST_WHOLE
    limit = facts.context_length or DEFAULT_CONTEXT
    return limit if about.longest is None else min(limit, about.longest)


def _refuse_options(protocol: str, checkpoint: Checkpoint, options: ScoreOptions) -> None:
    """Refuse options that the tool does not have."""
    about = PROTOCOLS[protocol]
    if options.stride is not None and about.stride is None:
        raise UsageError("protocol.option", f"`stride` {options.stride}: {protocol} has no stride of its own")
    if options.bos != "auto" and (not about.bos_never or options.bos == "always"):
        raise UsageError("protocol.option", f"`bos` {options.bos}: {protocol} decides that itself")
    # The user's option is on the checkpoint's own tokenizer; the one that a tool rebuilt does not have it.
    given = getattr(checkpoint, "own_tokenizer", checkpoint.tokenizer)
    plain = getattr(given, "special_strings", "control") == "text"
    if plain and about.special_strings == "control":
        raise UsageError("protocol.option", f"`special_strings` text: {protocol} reads special strings as control ids")
    refuse_beyond_hard_limit(checkpoint, options.context or 0)


def own_bos(protocol: str, checkpoint: Checkpoint) -> int | None:
    """Return the id that a tokenizer puts before a text by itself; it need not be the one called BOS."""
    tokenizer = checkpoint.tokenizer
    first: int | None = getattr(tokenizer, "first_id", tokenizer.bos_id if tokenizer.adds_bos else None)
    return first if first is None else _known(protocol, checkpoint, first)


def _prefix(protocol: str, checkpoint: Checkpoint, own: int | None) -> int | None:
    """Return the id that a tool puts before each document; `own` is the id that the tokenizer adds by itself."""
    tokenizer, kind = checkpoint.tokenizer, PROTOCOLS[protocol].prefix
    token_id = {
        Prefix.NONE: None,
        Prefix.ADDED: own,
        Prefix.BOS: tokenizer.bos_id,
        Prefix.EOS: tokenizer.eos_id,
        Prefix.BOS_OR_EOS: tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id,
        Prefix.BOS_IF_NOT_ADDED: None if tokenizer.adds_bos else tokenizer.bos_id,
    }[kind]
    if token_id is not None:
        return _known(protocol, checkpoint, token_id)
    if kind in REQUIRED:
        raise UsageError(
            "protocol.no_prefix",
            f"puts {REQUIRED[kind]} before each document, and the tokenizer of {checkpoint.facts.name} has none",
            subject=protocol,
        )
    return None


def _known(protocol: str, checkpoint: Checkpoint, token_id: int) -> int:
    """Return an id, or refuse one that the model does not have."""
    if token_id >= checkpoint.facts.vocab_size:
        raise UsageError(
            "protocol.no_prefix",
            f"puts id {token_id} before each document, the model has {checkpoint.facts.vocab_size} ids",
            subject=protocol,
        )
    return token_id
