"""Cut what a template writes between the texts of a conversation into endings of turns, headers and the rest.

What ends a turn is what the template writes after it where the conversation stops there. The header of an answer is what
the template adds there when it is asked for the next answer (its generation prompt).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lossprobe.checkpoint.templates.located import Found, Located, NotCertainError, Render

ASSISTANT, USER, SYSTEM = "assistant", "user", "system"
# The smallest units that are compared: names of control tokens, characters of white space, words.
UNIT = re.compile(r"<\|[^<>|\s]{1,60}\|>|</?[^<>\s]{1,60}>|\[/?[A-Z_]{1,30}\]|\s|[^\s<\[]+|.", re.DOTALL)


@dataclass(frozen=True)
class Habits:
    """What a template does in every conversation, learned from one that was made for it.

    Attributes:
        generation_prompt: what it writes when it is asked for the next answer.
        endings: role → what it writes after a turn of this role.
        last_ending: what it writes after an answer that ends the conversation.
        user_header: what it writes before a turn of the user.
        opening: what it writes before the header of the first turn: a BOS, a system prompt of its own.
        bos: text of the BOS, "" for none.
    """

    generation_prompt: str = ""
    endings: Mapping[str, str] = field(default_factory=dict)
    last_ending: str = ""
    user_header: str = ""
    opening: str = ""
    bos: str = ""


@dataclass(frozen=True)
class Turn:
    """A message in the rendered text.

    Attributes:
        number: number of the message.
        role: who speaks.
        found: its texts, in order.
        begin: where the ending of the turn before it ends.
        stop: where its own ending ends, white space included.
        prompt: the generation prompt, as far as its header begins with it.
        agrees: whether the conversation up to this turn is rendered as in the whole.
    """

    number: int
    role: str
    found: list[Found]
    begin: int
    stop: int
    prompt: str
    agrees: bool


def turns_of(render: Render, located: Located, text: str, habits: Habits) -> list[Turn]:
    """Return the turns of a rendered conversation in the order of the text.

    Raises:
        NotCertainError: turns are mixed, or it is not certain where an answer ends.
    """
    groups: list[tuple[int, list[Found], str]] = []
    for found, mark in zip(located.found, located.marks, strict=True):
        if groups and groups[-1][0] == found.piece.turn:
            groups[-1] = (found.piece.turn, [*groups[-1][1], found], mark)
        else:
            groups.append((found.piece.turn, [found], mark))
    if len({number for number, _, _ in groups}) < len(groups):
        raise NotCertainError("the template mixes the texts of several turns")
    turns: list[Turn] = []
    begin, prompt = 0, habits.generation_prompt
    for index, (number, pieces, mark) in enumerate(groups):
        role = str(located.marked[number].get("role", ""))
        following = groups[index + 1][1][0].start if index + 1 < len(groups) else len(text)
        gap = text[pieces[-1].stop : following]
        tails = _Tails(render, located, number, mark)
        ending = _ending(tails, gap, prompt, habits.endings.get(role), last=index + 1 == len(groups))
        if ending is None:
            if role == ASSISTANT:
                raise NotCertainError(f"turn {number}: the template ends this answer in another way when more follows")
            ending = ""
        stop = pieces[-1].stop + len(ending)
        turns.append(Turn(number, role, pieces, begin, stop, prompt, tails.agrees))
        begin, prompt = stop, prompt or tails.prompt
    return turns


class _Tails:
    """What the template writes after a turn where the conversation stops there.

    Attributes:
        plain: what it writes; None where it refuses to render the conversation up to there.
        agrees: whether it renders the conversation up to there as it does in the whole.
    """

    def __init__(self, render: Render, located: Located, number: int, mark: str) -> None:
        self._render, self._messages, self._mark = render, located.marked[: number + 1], mark
        whole = len(self._messages) == len(located.marked)
        shown = located.skeleton if whole else render(self._messages, False)
        self.plain = self._after(shown)
        self.agrees = (
            shown is not None
            and self.plain is not None
            and located.skeleton.startswith(shown[: len(shown) - len(self.plain)])
        )
        self._asked: tuple[str | None] | None = None

    @property
    def asked(self) -> str | None:
        """What it writes when it is asked for the next answer."""
        if self._asked is None:
            self._asked = (self._after(self._render(self._messages, True)),)
        return self._asked[0]

    @property
    def prompt(self) -> str:
        """The generation prompt, "" where it cannot be told apart from the ending."""
        if self.plain is None or self.asked is None:
            return ""
        return self.asked[len(common_start(self.plain, self.asked)) :]

    def _after(self, text: str | None) -> str | None:
        before, mark, after = (text or "").rpartition(self._mark)
        return after if mark else None


def _ending(tails: _Tails, gap: str, prompt: str, usual: str | None, *, last: bool) -> str | None:
    """Return what ends a turn, white space included; None where that is not certain.

    Args:
        tails: what follows it where the conversation stops there.
        gap: what follows it here, up to the text of the next turn.
        prompt: the generation prompt.
        usual: what follows turns of its role in other conversations, None where unknown.
        last: whether no other turn follows.
    """
    plain = tails.plain
    if plain is None:
        return usual if usual is not None and gap.startswith(usual) else "" if not gap.strip() else None
    if not last and gap.startswith(plain) and plain.strip():
        return plain
    asked = tails.asked
    if asked is None or asked.startswith(plain):
        ending = plain
    elif prompt and asked.endswith(prompt):
        ending = asked.removesuffix(prompt)
    else:
        ending = common_start(plain, asked)
    if gap.startswith(ending):
        return ending
    if last:
        return gap
    shared = common_start(ending, gap)
    return shared if shared.strip() or not ending.strip() else None


def common_start(one: str, other: str) -> str:
    """Return the longest common start of two texts that ends between units, such as names of control tokens."""
    end = 0
    for left, right in zip(UNIT.finditer(one), UNIT.finditer(other), strict=False):
        if left[0] != right[0]:
            break
        end = left.end()
    return one[:end]


def learned(turns: Sequence[Turn], text: str, bos: str) -> Habits:
    """Return the habits that show in the turns of a conversation user, assistant, user, assistant.

    Args:
        turns: its turns.
        text: what the template makes of it.
        bos: text of the BOS.
    """
    first, answer, question, final = turns
    endings = {turn.role: text[turn.found[-1].stop : turn.stop] for turn in (question, answer)}
    header = text[question.begin : question.found[0].start].lstrip()
    start = text[: first.found[0].start]
    opening = start.removesuffix(header) if header else ""
    opening = "" if opening == start else opening
    return Habits(final.prompt, endings, text[final.found[-1].stop : final.stop], header, opening, bos)
