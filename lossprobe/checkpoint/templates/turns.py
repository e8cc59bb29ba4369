"""Cut what a template writes between the texts of a conversation into endings of turns, headers and the rest.

What ends a turn is what the template writes after it where the conversation stops there. The header of an answer is
what the template adds there when it is asked for the next answer (its generation prompt).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lossprobe.checkpoint.templates.located import Found, Located, NotCertainError, Render
from lossprobe.checkpoint.templates.silent import silent_turns
from lossprobe.checkpoint.templates.units import ASSISTANT, USER, common_start

# So many turns are compared with the conversation up to each of them; of later ones, those with a gap seen before are
# not, since the time would grow with the square of their number.
ALL_PREFIXES = 32


@dataclass(frozen=True)
class Habits:
    """What a template does in every conversation, learned from one that was made for it.

    Attributes:
        generation_prompt: what it writes when it is asked for the next answer.
        endings: role → what it writes after a turn of this role.
        last_ending: what it writes after an answer that ends the conversation.
        user_header: what it writes before a turn of the user.
        answer_header: what it writes before an answer.
        opening: what it writes before the header of the first turn: a BOS, a system prompt of its own.
        bos: text of the BOS, "" for none.
    """

    generation_prompt: str = ""
    endings: Mapping[str, str] = field(default_factory=dict)
    last_ending: str = ""
    user_header: str = ""
    answer_header: str = ""
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
    groups = _groups(render, located, text)
    turns: list[Turn] = []
    endings: dict[tuple[str, object, str], str] = {}
    begin, prompt = 0, habits.generation_prompt
    for index, (number, pieces, mark, head) in enumerate(groups):
        role = str(located.marked[number].get("role", ""))
        following = groups[index + 1][1][0].start if index + 1 < len(groups) else len(text)
        gap = text[pieces[-1].stop : following]
        known = (role, index + 1 < len(groups) and located.marked[groups[index + 1][0]].get("role"), gap)
        if index >= ALL_PREFIXES and known in endings:
            found: str | None = endings[known]
            agrees, asked = True, ""
        else:
            tails = _Tails(render, located, number, mark, head)
            usual = habits.endings.get(role, habits.endings.get(USER))
            found = _ending(tails, gap, prompt, usual, last=index + 1 == len(groups))
            agrees, asked = tails.agrees, prompt or tails.prompt
        if found is None and role == ASSISTANT:
            raise NotCertainError(f"turn {number}: the template ends this answer in another way when more follows")
        endings[known] = ending = found or ""
        stop = pieces[-1].stop + len(ending)
        turns.append(Turn(number, role, pieces, begin, stop, prompt, agrees))
        begin, prompt = stop, prompt or asked
    return turns


def _groups(render: Render, located: Located, text: str) -> list[tuple[int, list[Found], str, str]]:
    """Return for each turn its number, its texts, and the mark of the last one or, without a text, what precedes it.

    Raises:
        NotCertainError: the texts of a turn are apart from each other, or the place of an empty answer is not certain.
    """
    marks = zip(located.found, located.marks, strict=True)
    entries = [(found, mark, "") for found, mark in marks]
    entries += [(silent.found, "", silent.head) for silent in silent_turns(render, located, text)]
    groups: list[tuple[int, list[Found], str, str]] = []
    for found, mark, head in sorted(entries, key=lambda entry: (entry[0].start, entry[0].piece.turn)):
        number = found.piece.turn
        if groups and groups[-1][0] == number:
            groups[-1] = (number, [*groups[-1][1], found], mark, head)
        elif any(number == before for before, *_ in groups):
            raise NotCertainError(f"turn {number}: the template writes another turn between its texts")
        else:
            groups.append((number, [found], mark, head))
    return groups


class _Tails:
    """What the template writes after a turn where the conversation stops there.

    Attributes:
        plain: what it writes; None where it refuses to render the conversation up to there.
        agrees: whether it renders the conversation up to there as it does in the whole.
    """

    def __init__(self, render: Render, located: Located, number: int, mark: str, head: str) -> None:
        self._render, self._messages, self._mark, self._head = render, located.marked[: number + 1], mark, head
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
        if not self._mark:
            return text.removeprefix(self._head) if text is not None and text.startswith(self._head) else None
        _, mark, after = (text or "").rpartition(self._mark)
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
    last = text[final.found[-1].stop : final.stop]
    before_answer = text[answer.begin : answer.found[0].start].lstrip()
    return Habits(final.prompt, endings, last, header, before_answer, opening, bos)
