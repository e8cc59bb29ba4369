"""Conversations, completions and pairs become texts with labels, and a run of them has turns, roles and parts."""

import numpy as np
import pandas as pd
import pytest
from fakes import SmallModel, checkpoint

from lossprobe.errors import BadTextError, NothingToScoreError, UsageError
from lossprobe.passes import rendered as rendered_module
from lossprobe.passes.known_text import KnownText, skipped_of
from lossprobe.passes.protocols import EndedSource, JoinedSource, score_protocol
from lossprobe.passes.rendered import rendered
from lossprobe.passes.score import score
from lossprobe.passes.selfcheck import run_selfcheck
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import Document, StringSource
from lossprobe.text.examples import Completion, Conversation, DataKind, Pair
from lossprobe.text.spans import Part, Span

CHAT = Conversation((
    {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}, {"role": "user", "content": "Ah"},
    {"role": "assistant", "content": "Yes"},
))  # fmt: skip


class Examples:
    """A text of examples."""

    def __init__(self, kind, *examples):
        self.name, self.notices, self.kind, self.examples = "made", [], kind, examples

    def documents(self):
        """Yield a document without text for each example."""
        for line, example in enumerate(self.examples, 1):
            yield Document("", "made.jsonl", line, -1, "{}", example)


class Made:
    """What the fake renderer makes."""

    def __init__(self, text, spans):
        self.text, self.spans, self.dated, self.dropped_turns = text, spans, False, ()


class Plain:
    """Renders `<role>content;` with one byte a token, so that every edge is known."""

    def __init__(self, template, shown):
        """Take what the real one takes."""

    def render(self, conversation, where):
        """Return the text and its spans."""
        text, spans = "", []
        for turn, message in enumerate(conversation.messages):
            for piece, part in ((f"<{message['role']}>", Part.HEADER), (message["content"], Part.CONTENT),
                                (";", Part.END_OF_TURN), ("\n", Part.TEMPLATE)):  # fmt: skip
                text += piece
                spans.append(Span(len(text.encode()), turn, message["role"], part))
        return Made(text, tuple(spans))


@pytest.fixture
def model(monkeypatch):
    """A model with a chat template."""
    monkeypatch.setattr(rendered_module, "Renderer", Plain)
    made = checkpoint(SmallModel())
    made.tokenizer.chat_template = rendered_module.ChatTemplate("{}", "here")
    return made


def scored_text(run):
    """Return the text of the scored tokens."""
    frame = run.tokens(text=True)
    return "".join(frame[frame["unscored"].isna()]["text"])


@pytest.mark.parametrize(
    ("example", "asked", "wanted"),
    [
        (CHAT, "auto", "So.;Yes;"),
        (CHAT, "assistant", "So.;Yes;"),
        (CHAT, "last-turn", "Yes;"),
        (CHAT, "user", "Why?;Ah;"),
        (CHAT, "user,assistant", "Why?;So.;Ah;Yes;"),
        (Conversation(CHAT.messages, (), 3), "auto", "Yes;\n"),
        (Conversation(CHAT.messages, (), 3), "assistant", "So.;Yes;"),
        (Conversation(CHAT.messages, (), 1), "auto", "So.;\n<user>Ah;\n<assistant>Yes;\n"),
        (Completion("Ask: ", "Told"), "auto", "Told"),
        (Completion("Ask: ", "Told"), "prompt", "sk: "),
        (Completion("", "Told"), "completion", "old"),
        (Pair(Completion("Q", "good"), Completion("Q", "bad")), "auto", "good"),
    ],
)  # fmt: skip
def test_what_is_scored(example, asked, wanted, model, tmp_path):
    kind = {Conversation: DataKind.CHAT, Completion: DataKind.COMPLETION, Pair: DataKind.PAIRS}[type(example)]
    run = score(model, Examples(kind, example), ScoreOptions(score=asked, bos="never"), output=tmp_path / "run").run
    assert scored_text(run).replace("\\n", "\n") == wanted
    frame = run.tokens()
    reasons = frame["unscored"].dropna().unique().tolist()
    assert set(reasons) <= {"masked", "first_token"}


def test_all_tokens_of_a_conversation_have_labels(model, tmp_path):
    run = score(model, Examples(DataKind.CHAT, CHAT), ScoreOptions(score="all"), output=tmp_path / "run").run
    frame = run.tokens(text=True)
    named = frame.groupby(["turn", "role", "part"], dropna=False, sort=False)["text"].sum().reset_index()
    assert named[named["turn"] == 1].to_numpy().tolist() == [
        [1, "assistant", "header", "<assistant>"], [1, "assistant", "content", "So."],
        [1, "assistant", "end_of_turn", ";"], [1, "assistant", "template", "\n"],
    ]  # fmt: skip
    assert run.settings.text.kind == "chat"
    assert run.counts["straddling_tokens"] == 0


def test_any_number_of_roles(model, tmp_path):
    names = [f"guest {number}" for number in range(300)]
    said = [Conversation(({"role": name, "content": "Hi"}, {"role": "assistant", "content": "So."})) for name in names]
    run = score(model, Examples(DataKind.CHAT, *said), ScoreOptions(bos="never"), output=tmp_path / "run").run
    found = run.tokens().groupby("document")["role"].agg(lambda roles: set(roles.dropna()))
    assert found.tolist() == [{name, "assistant"} for name in names]


def test_masked_tokens_are_context_of_those_that_are_scored(model, tmp_path):
    everything = score(model, Examples(DataKind.CHAT, CHAT), ScoreOptions(score="all"), output=tmp_path / "all").run
    some = score(model, Examples(DataKind.CHAT, CHAT), output=tmp_path / "some").run
    one, two = everything.tokens(), some.tokens()
    scored = two["unscored"].isna()
    pd.testing.assert_series_equal(one["loss_nats"][scored], two["loss_nats"][scored], rtol=1e-5)
    assert np.isnan(two["loss_nats"][~scored]).all()
    assert some.manifest["settings"] != everything.manifest["settings"]


@pytest.mark.parametrize(("how", "kept"), [("keep-start", "hat"), ("keep-end", ";Y")])
def test_a_conversation_is_cut_as_trainers_cut_it(how, kept, model, tmp_path):
    options = ScoreOptions(score="all", truncate=how, context=4, bos="never")
    text = Examples(DataKind.COMPLETION, Completion("", "What is it;Y"))
    run = score(model, text, options, output=tmp_path / "run").run
    wanted = {"keep-start": "hat", "keep-end": "t;Y"}[how]
    assert scored_text(run) == wanted  # four tokens, of which the first is only seen
    whole = score(model, StringSource([{"keep-start": "What", "keep-end": "it;Y"}[how]]), ScoreOptions(bos="never")).run
    losses = [each.tokens()["loss_nats"].dropna().tolist() for each in (run, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(("refused", "details"), [(30, 3), (29, 20)])
def test_a_template_that_refuses_every_record_lists_a_few(model, monkeypatch, refused, details):
    class Refusing(Plain):
        """Refuses the records up to a line."""

        def render(self, conversation, where):
            """Raise an error for them."""
            if int(where.rpartition(" ")[2]) <= refused:
                raise BadTextError("template.refused", f"{where}: no")
            return super().render(conversation, where)

    monkeypatch.setattr(rendered_module, "Renderer", Refusing)
    with pytest.raises(BadTextError, match=f"{refused} bad records: ") as caught:
        list(rendered(Examples(DataKind.CHAT, *[CHAT] * 30), model).documents())
    assert len(caught.value.details) == details, "without the first one, and with a line for the rest"


def test_a_cut_before_every_answer_is_named_with_the_longest_prompt(model, tmp_path):
    text = Examples(DataKind.COMPLETION, Completion("What is it", "Y"), Completion("It", "Y"))
    with pytest.raises(NothingToScoreError, match="cut to the first 2, no document keeps what is scored") as caught:
        score(model, text, ScoreOptions(truncate="keep-start", context=2, bos="never"), output=tmp_path / "run")
    assert caught.value.hint.startswith("`truncate` keep-end keeps the ends; up to 10 tokens stand before")
    assert not (tmp_path / "run").exists()


def test_conversations_without_an_assistant_name_their_roles(model, tmp_path):
    said = ({"role": "human", "content": "Who?"}, {"role": "ai", "content": "I."})
    with pytest.raises(NothingToScoreError) as caught:
        score(model, Examples(DataKind.CHAT, Conversation(said)), output=tmp_path / "run")
    assert caught.value.hint == "no message has the role assistant; `score` takes others: ai, human"


def test_sources_made_of_others_pass_on_what_was_left_out():
    text = StringSource(["abc", "de"])
    text.skipped = {"record": 2}
    for made in (KnownText(text), JoinedSource(text), EndedSource(text, ";")):
        assert skipped_of(made) == {"record": 2}, type(made)


def test_selfcheck_checks_the_tokens_that_are_scored(model):
    _, found = run_selfcheck(model, Examples(DataKind.CHAT, CHAT))
    assert found.table["tokens"].max() == len("So.;Yes;")


def test_plain_text_has_no_roles(model):
    with pytest.raises(UsageError, match="plain text"):
        rendered(StringSource(["abc"]), model, "assistant")
    source = StringSource(["abc"])
    assert rendered(source, model) is source


def test_strings_and_messages_are_not_mixed(model):
    text = rendered(Examples(DataKind.COMPLETION, CHAT, Completion("a", "b")), model)
    with pytest.raises(Exception, match=r"line 2: messages and plain strings"):
        list(text.documents())


def test_tools_that_know_no_masks_score_every_token(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for protocol, masks in (("lm-eval", False), ("gptq", False), ("llama-factory", True), ("trainer", True)):
        run, _ = score_protocol(protocol, model, Examples(DataKind.CHAT, CHAT), ScoreOptions(context=30))
        assert ("masked" in run.counts["unscored_tokens"]) == masks, protocol
    with pytest.raises(UsageError, match="lm-eval scores all tokens"):
        score_protocol("lm-eval", model, Examples(DataKind.CHAT, CHAT), ScoreOptions(score="user"))


def test_a_role_that_no_record_has_is_refused(model):
    text = rendered(Examples(DataKind.CHAT, CHAT), model, "assistant,usr")
    with pytest.raises(UsageError, match="no record of made has the role usr") as caught:
        list(text.documents())
    assert caught.value.hint == "roles of the text: assistant, user"


def test_a_template_that_writes_no_role_leaves_nothing_to_score(model, tmp_path, monkeypatch):
    class Constant(Plain):
        """Renders the same text of every conversation."""

        def render(self, conversation, where):
            """Return it."""
            return Made("hello", (Span(5, None, None, Part.TEMPLATE),))

    monkeypatch.setattr(rendered_module, "Renderer", Constant)
    everything = score(model, Examples(DataKind.CHAT, CHAT), ScoreOptions(score="all"), output=tmp_path / "run").run
    assert everything.tokens()["role"].isna().all()
    with pytest.raises(NothingToScoreError, match="masked 5"):
        score(model, Examples(DataKind.CHAT, CHAT), output=tmp_path / "none")
