"""Records of post-training data: which kind they are, what they hold, and what is wrong with them."""

import gzip
import json
import weakref
from dataclasses import replace
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lossprobe.errors import BadTextError, TextError, UsageError
from lossprobe.text.documents import StringSource, open_text
from lossprobe.text.example_records import shared_start
from lossprobe.text.examples import Completion, Conversation, DataKind, Pair, example_to_json, memory_of
from lossprobe.text.fingerprint import fingerprint
from lossprobe.text.options import TextOptions
from lossprobe.text.spans import Part, Span

USER = {"role": "user", "content": "Hi"}
HELLO = {"role": "assistant", "content": "Hello."}
NO = {"role": "assistant", "content": "No."}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
CHAT = {"messages": [USER, HELLO]}


def write(folder, *records, name="data.jsonl"):
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(list(records)), path)
        return path
    lines = "\n".join(record if isinstance(record, str) else json.dumps(record) for record in records)
    path.write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())
    return path


def read(path, **options):
    source = open_text(path, TextOptions(**options))
    return list(source.documents()), source


def one(folder, record, **options):
    (document,), source = read(write(folder, record), **options)
    assert document.text == ""
    return document.example, source


def refused(folder, record, id, **options):
    """Return the message about a record, without file and line; one good record of a conversation stands before it."""
    path = write(folder, record, **options)
    with pytest.raises(BadTextError) as caught:
        read(path)
    assert caught.value.id == id
    assert "\n" not in caught.value.message
    return caught.value.message.removeprefix(f"{path}: line 1")


def test_messages_are_a_conversation_with_the_other_fields_beside(tmp_path):
    (document,), source = read(write(tmp_path, CHAT | {"id": 7, "tools": None}))
    assert document.example == Conversation((USER, HELLO))
    assert (document.text, document.line, document.byte_offset) == ("", 1, -1)
    assert json.loads(document.fields) == {"id": 7}
    assert source.kind is DataKind.CHAT


def test_speakers_of_sharegpt_get_the_roles_of_templates(tmp_path):
    said = [("system", "S"), ("human", "Q"), ("function_call", '{"name": "f", "arguments": {"a": 1}}'),
            ("observation", "4"), ("tool", "5"), ("gpt", "A"), ("narrator", "N")]  # fmt: skip
    example, _ = one(tmp_path, {"conversations": [{"from": role, "value": text} for role, text in said]})
    roles = [message["role"] for message in example.messages]
    assert roles == ["system", "user", "assistant", "tool", "tool", "assistant", "narrator"]
    assert example.messages[2] == {"role": "assistant", "tool_calls": [CALL]}
    assert example.messages[5]["content"] == "A"


def test_parts_of_text_are_joined_and_nulls_left_out(tmp_path):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "image_url": None}]
    call = {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Hm."}
    example, _ = one(tmp_path, {"messages": [{"role": "user", "content": parts}, call], "tools": [{"name": "f"}]})
    assert example.messages[0]["content"] == "ab"
    assert example.messages[1] == {"role": "assistant", "tool_calls": [CALL], "reasoning_content": "Hm."}
    assert example.tools == ({"name": "f"},)


@pytest.mark.parametrize("tools", [[{"name": "f"}], '[{"name": "f"}]'])
def test_tools_are_a_list_or_its_json(tmp_path, tools):
    assert one(tmp_path, CHAT | {"tools": tools})[0].tools == ({"name": "f"},)


def test_messages_may_be_written_as_json(tmp_path):
    assert one(tmp_path, {"messages": json.dumps([USER, HELLO])})[0] == Conversation((USER, HELLO))


def test_prompt_and_completion_are_texts_or_messages(tmp_path):
    (texts, chat), source = read(
        write(tmp_path, {"prompt": "1+1=", "completion": "2", "label": True}, {"prompt": [USER], "completion": [HELLO]})
    )
    assert texts.example == Completion("1+1=", "2")
    assert json.loads(texts.fields) == {"label": True}
    assert chat.example == Conversation((USER, HELLO), prompt_messages=1)
    assert source.kind is DataKind.COMPLETION
    assert source.notices == [f"{source.files[0].shown}: prompts with completions (prompt, completion); 2 records"]


@pytest.mark.parametrize(("more", "asked"), [({"input": "1 2"}, "Add\n1 2"), ({"input": ""}, "Add"), ({}, "Add")])
def test_instructions_are_conversations_of_two_messages(tmp_path, more, asked):
    example, _ = one(tmp_path, {"instruction": "Add", "output": "3"} | more)
    said = ({"role": "user", "content": asked}, {"role": "assistant", "content": "3"})
    assert example == Conversation(said, prompt_messages=1)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": [USER], "chosen": [HELLO], "rejected": [NO]},
        {"prompt": "Hi", "chosen": [HELLO], "rejected": [NO]},  # a prompt that the sides do not hold
        {"prompt": "Hi", "chosen": [USER, HELLO], "rejected": [USER, NO]},  # and one that they do
        {"chosen": [USER, HELLO], "rejected": [USER, NO]},
        {"prompt": [USER], "chosen": HELLO, "rejected": NO},  # one message a side
        {"chosen": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}], "rejected": [USER, NO]},
    ],
)
def test_sides_of_messages_share_their_prompt(tmp_path, record):
    example, source = one(tmp_path, record)
    assert example == Pair(Conversation((USER, HELLO), (), 1), Conversation((USER, NO), (), 1))
    assert source.kind is DataKind.PAIRS


def test_one_message_a_side_follows_the_conversation(tmp_path):  # as LLaMA-Factory has it
    chat = [{"from": "human", "value": "Hi"}]
    record = {"conversations": chat, "chosen": {"from": "gpt", "value": "Hello."}, "rejected": NO}
    for options in ({"data_kind": "pairs"}, {}):
        example, source = one(tmp_path, record, **options)
        assert example == Pair(Conversation((USER, HELLO), (), 1), Conversation((USER, NO), (), 1))
    assert "pairs (conversations, chosen, rejected); 1 record; `data_kind` chat reads" in source.notices[0]


@pytest.mark.parametrize("sides", [("Hello.", "No."), (HELLO, NO), ([HELLO], [NO])])
@pytest.mark.parametrize("more", [{}, {"input": ""}, {"input": "there"}])
def test_an_instruction_is_what_the_user_says_before_both_sides(tmp_path, sides, more):
    chosen, rejected = sides
    example, source = one(tmp_path, {"instruction": "Hi", "chosen": chosen, "rejected": rejected} | more)
    user = USER | {"content": "Hi\nthere"} if more.get("input") else USER
    assert example == Pair(Conversation((user, HELLO), (), 1), Conversation((user, NO), (), 1))
    assert source.notices[0].endswith("pairs (instruction, chosen, rejected); 1 record")
    assert len(source.notices) == 1


@pytest.mark.parametrize("key", ["question", "query", "input", "context"])
def test_a_question_that_is_no_part_of_the_prompt_is_told(tmp_path, key):
    told = f"1 record with a field {key}, which is no part of the prompt: name it prompt if it is one"
    for sides in ({"chosen": "Yes", "rejected": "No"}, {"chosen": HELLO, "rejected": NO}):
        _, source = one(tmp_path, {key: "Is it?"} | sides)
        assert source.notices[1].endswith(told)
    for prompt in ({"prompt": "So?"}, {"chosen": "Is it? Yes", "rejected": "Is it? No"}):
        _, source = one(tmp_path, {key: "Is it?", "chosen": "Yes", "rejected": "No"} | prompt)
        assert len(source.notices) == 1
    _, source = one(tmp_path, {key: "Hi", "chosen": [USER, HELLO], "rejected": [USER, NO]})
    assert len(source.notices) == 1


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    "record",
    [
        '{{"text": {0}}}',
        '{{"instruction": "Add", "input": {0}, "output": "3"}}',
        '{{"instruction": "Add", "output": {0}}}',
        '{{"prompt": {0}, "completion": "a"}}',
        '{{"prompt": {0}, "chosen": "a", "rejected": "b"}}',
        '{{"prompt": {0}, "chosen": [{{"role": "a", "content": "b"}}], "rejected": [{{"role": "a", "content": "c"}}]}}',
        '{{"messages": [{{"role": "user", "content": {0}}}]}}',
    ],
)
def test_a_number_that_json_does_not_have_is_no_text(tmp_path, record, value):
    path = write(tmp_path, record.format(value))
    for newlines in ("keep", "lf"):
        with pytest.raises(BadTextError, match="number") as caught:
            read(path, newlines=newlines)
    hinted = any(each in record for each in ('"text"', '"input"', 'chosen": "a"'))
    assert ("pandas" in str(caught.value.hint)) == hinted


@pytest.mark.parametrize(
    ("record", "command"),
    [
        ({"question": "a", "answer": "b"}, "{instruction: .question, output: .answer}"),
        ({"prompt": "a", "response": "b"}, "{prompt: .prompt, completion: .response}"),
        ({"instruction": "a", "context": "", "response": "b"}, "{instruction: .instruction, input: .context, output:"),
        ({"prompt": "a", "response_chosen": "b", "response_rejected": "c"}, "chosen: .response_chosen, rejected:"),
        ({"input": {"messages": [USER]}, "preferred_output": [HELLO], "non_preferred_output": [NO]},
         "{prompt: .input.messages, chosen: .preferred_output, rejected: .non_preferred_output}"),
        ({"dialog": [USER, HELLO]}, "{messages: .dialog}"),
        ({"body": {"messages": [USER, HELLO]}}, "{messages: .body.messages}"),
    ],
)  # fmt: skip
def test_fields_of_other_names_are_named_with_a_command(tmp_path, record, command):
    with pytest.raises(BadTextError) as caught:
        read(write(tmp_path, record))
    assert (caught.value.id, command in caught.value.hint) == ("text.no_field", True), caught.value.hint
    names = dict(part.split(": .") for part in caught.value.hint.split("{")[1].split("}")[0].split(", "))
    renamed = {new: record[old.split(".")[0]] for new, old in names.items()}
    renamed = {new: value["messages"] if isinstance(value, dict) else value for new, value in renamed.items()}
    assert one(tmp_path, renamed)[0] is not None  # what the command makes is read


def test_a_field_without_a_text_is_not_proposed_for_itself(tmp_path):
    with pytest.raises(BadTextError) as caught:
        read(write(tmp_path, {"text": None, "id": 7}))
    assert caught.value.hint == "name the field that holds the text with `text_field`"


def test_sides_of_text_have_a_prompt_or_share_their_start(tmp_path):
    (given, shared), _ = read(
        write(tmp_path, {"prompt": "p", "chosen": "a", "rejected": "b"}, {"chosen": "It is so", "rejected": "It is no"})
    )
    assert given.example == Pair(Completion("p", "a"), Completion("p", "b"))
    assert shared.example == Pair(Completion("It is", " so"), Completion("It is", " no"))


@pytest.mark.parametrize(  # what extract_prompt of TRL 1.16.0 returns as the prompt, run once
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is"),
        ("The sky is blue.", "The sky is black.", "The sky is bl"),
        ("a  b", "a  c", "a "),
        ("Yes", "Yes", "Ye"),
        ("Yes", "Yes, sir", "Ye"),
        ("a b", "a bc", "a "),
        ("x", "y", ""),
        ([1, 2, 3], [1, 2, 4], [1, 2]),
        ([1, 2], [1, 2, 3], [1]),
    ],
)
def test_the_shared_start_is_that_of_trl(chosen, rejected, prompt):
    assert chosen[: shared_start(chosen, rejected)] == prompt


@pytest.mark.parametrize(
    ("record", "kind", "keys", "instead"),
    [
        (CHAT | {"chosen": "a", "rejected": "b"}, "chat", "messages", "pairs reads chosen and rejected"),
        ({"chosen": "a", "rejected": "b", "prompt": "p", "completion": "c"}, "pairs", "chosen, rejected",
         "completion reads prompt and completion"),
        ({"instruction": "i", "output": "o", "text": "t"}, "completion", "instruction, output", "text reads text"),
    ],
)  # fmt: skip
def test_the_first_record_says_the_kind_and_what_it_could_be_instead(tmp_path, record, kind, keys, instead):
    path = write(tmp_path, record)
    source = open_text(path)
    assert source.kind.value == kind
    assert not source.notices  # only a reading to the end knows how many records there are
    list(source.documents())
    (notice,) = source.notices
    assert notice.endswith(f" ({keys}); 1 record; `data_kind` {instead} instead")
    assert read(path, data_kind=kind)[1].notices == [notice.rpartition("; ")[0]]


@pytest.mark.parametrize(
    "record",
    [
        {"text": "a", "messages": 3},
        {"text": "a", "prompt": 12, "completion": 30},
        {"text": "a", "chosen": True, "rejected": False},
        {"text": "a", "messages": None},
    ],
)
def test_counts_and_flags_are_no_post_training_data(tmp_path, record):
    (document,), source = read(write(tmp_path, record))
    assert (document.text, document.example, source.kind, source.notices) == ("a", None, DataKind.TEXT, [])


def test_what_is_asked_for_overrules_the_keys(tmp_path):
    path = write(tmp_path, CHAT | {"text": "plain"})
    for options in ({"data_kind": "text"}, {"text_field": "text"}):
        (document,), source = read(path, **options)
        assert (document.text, document.example, source.kind) == ("plain", None, DataKind.TEXT)
    with pytest.raises(UsageError) as caught:
        read(path, data_kind="chat", text_field="text")
    assert caught.value.id == "text.field_and_kind"
    other = write(tmp_path, CHAT, name="data.txt")  # any file is one of records where a kind of records is asked for
    assert read(other, data_kind="chat")[0][0].example == Conversation((USER, HELLO))
    assert read(other)[0][0].text.startswith('{"messages"')


def test_a_record_of_another_kind_is_refused_with_its_line(tmp_path):
    path = write(tmp_path, CHAT, {"text": "plain"}, 7, {"prompt": "p", "completion": "c"}, {"a": 1})
    with pytest.raises(BadTextError) as caught:
        read(path)
    assert caught.value.id == "text.other_kind"
    assert caught.value.message == f"4 bad records: {path}: line 2 is not a conversation but plain text"
    assert [line.removeprefix(f"{path}: ") for line in caught.value.details] == [
        "line 3 is not a conversation (found: a number)",
        "line 4 is not a conversation but a prompt with its completion",
        "line 5 is not a conversation (found: a)",
    ]
    documents, source = read(path, skip_bad=True)
    assert len(documents) == 1
    assert source.skipped == {"record": 4}
    plain_first = write(tmp_path, {"text": "plain"}, CHAT)
    with pytest.raises(BadTextError, match="line 2 is not plain text but a conversation"):
        read(plain_first)


def test_a_plain_file_among_records_is_refused_by_name(tmp_path):
    write(tmp_path, CHAT, name="a.jsonl")
    (tmp_path / "b.md").write_text("About the data.")
    with pytest.raises(BadTextError) as caught:
        read(tmp_path)
    assert (caught.value.id, "include" in caught.value.hint) == ("text.other_kind", True)
    assert caught.value.message.endswith("b.md is plain text, and other files of the text hold conversations")
    assert len(read(tmp_path, include=("*.jsonl",))[0]) == 1


USER_SAYS = {"role": "user"}
NOTHING = ", so that nothing is to be learned"
ALL = "; all must be strings, or lists of messages"


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], " holds no message"),
        ([{"content": "a"}], ": message 1 has no role (found: content)"),
        ([{"role": "", "content": "a"}], ": message 1 has no role"),
        ([{"role": 1, "content": "a"}], ": message 1 has no role"),
        ([USER, {"role": "assistant"}], ": message 2 (assistant) has neither content nor tool calls"),
        ([USER_SAYS | {"content": None, "tool_calls": []}], ": message 1 (user) has neither content nor tool calls"),
        ([USER_SAYS | {"content": 5}], ": message 1 (user): content is a number, not a string"),
        ([USER_SAYS | {"content": ["a"]}], ": message 1 (user): a part of content is a string, not an object"),
        ([USER_SAYS | {"content": [{"type": "text"}]}], ": message 1 (user): a part of content has no text"),
        (["Hi"], ": message 1 is a string, not an object"),
        ([USER | {"tool_calls": "x"}], ": message 1 (user): tool_calls is a string that is not JSON"),
        ([USER | {"tool_calls": {}}], ": message 1 (user): tool_calls is no list of objects"),
        ([USER | {"thinking": 1}], ": message 1 (user): thinking is a number, not a string"),
        ([{"from": "function_call", "value": "f(1)"}], ": message 1 (function_call) is a string that is not JSON"),
        ([{"from": "function_call", "value": "{}"}], ": message 1 (function_call) is no call with a name and "
         "arguments"),
        ("[x", " is a string that is not JSON"),
        ("[" * 100_000, " is a string that is not JSON"),
    ],
)  # fmt: skip
def test_bad_messages_are_refused_by_number_and_role(tmp_path, messages, says):
    assert refused(tmp_path, {"messages": messages}, "text.bad_messages") == f": messages{says}"


@pytest.mark.parametrize(
    ("record", "id", "says"),
    [
        ({"messages": [USER_SAYS | {"content": [{"type": "image_url"}]}]}, "text.not_only_text",
         ": messages: message 1 (user): content has a part of type image_url; only text can be scored"),
        (CHAT | {"images": ["a.png"]}, "text.not_only_text", " holds images; only text can be scored"),
        (CHAT | {"tools": "x"}, "text.bad_messages", ": tools is a string that is not JSON"),
        (CHAT | {"tools": {"name": "f"}}, "text.bad_messages", ": tools is no list of objects"),
        ({"prompt": "a", "completion": ""}, "text.bad_example", ": completion is empty" + NOTHING),
        ({"instruction": "a", "output": ""}, "text.bad_example", ": output is empty" + NOTHING),
        ({"chosen": "a", "rejected": ""}, "text.bad_example", ": rejected is empty" + NOTHING),
        ({"prompt": [USER], "completion": "a"}, "text.bad_example",
         ": prompt is an array and completion is a string" + ALL),
        ({"prompt": [], "completion": [HELLO]}, "text.bad_messages", ": prompt holds no message"),
        ({"chosen": [HELLO], "rejected": "a"}, "text.bad_example",
         ": chosen is an array and rejected is a string" + ALL),
        ({"prompt": [USER], "chosen": "a", "rejected": "b"}, "text.bad_example",
         ": prompt is an array and chosen is a string and rejected is a string" + ALL),
        ({"prompt": 1, "chosen": [HELLO], "rejected": [NO]}, "text.bad_example", ": prompt is a number"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "text.surrogate", " holds half a surrogate pair"),
    ],
)  # fmt: skip
def test_bad_records_are_refused_by_what_is_wrong(tmp_path, record, id, says):
    assert refused(tmp_path, record, id) == says


def test_sides_of_other_types_are_no_pair(tmp_path):
    path = write(tmp_path, {"chosen": 1, "rejected": "a"})
    with pytest.raises(BadTextError, match="chosen, which is a number; rejected, which is a string"):
        read(path, data_kind="pairs")


def test_equal_sides_and_template_arguments_are_told_and_counted(tmp_path):
    record = {"prompt": [USER], "chosen": [HELLO], "rejected": [HELLO], "chat_template_kwargs": {"enable_thinking": 1}}
    documents, source = read(write(tmp_path, record, record, record | {"rejected": [NO], "chat_template_kwargs": None}))
    assert len(documents) == 3
    shown = source.files[0].shown
    assert source.notices == [
        f"{shown}: pairs (chosen, rejected); 3 records",
        f"{shown}: 2 records with equal sides, which tell nothing",
        f"{shown}: 2 records with chat_template_kwargs, which the template gets",
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"messages": []}, "sets messages, which the template has already"),
        ({"tools": []}, "sets tools"),
        ({"bos_token": "x"}, "sets bos_token"),
        ({"additional_special_tokens": []}, "sets additional_special_tokens"),
        ([1], "is an array, not an object"),
        ("{", "is a string that is not JSON"),
    ],
)
def test_template_arguments_that_take_the_place_of_others_are_refused(tmp_path, values, said):
    path = write(tmp_path, {"messages": [USER, HELLO], "chat_template_kwargs": values})
    with pytest.raises(BadTextError, match=f"line 1: chat_template_kwargs {said}"):
        read(path)


@pytest.mark.parametrize(
    ("record", "id", "said", "hint"),
    [
        ({"prompt": "a", "chosen": None, "rejected": "b"}, "text.bad_example", "chosen is null", "correct"),
        ({"prompt": "a", "completion": 7}, "text.bad_example", "completion is a number", "correct"),
        ({"messages": "hello"}, "text.bad_example", "messages is a string, not a list of messages", "`text_field`"),
        ({"question": "a", "answer": "b"}, "text.no_field", "no text in the field text", "answer to output"),
        ({"contents": [], "id": "b"}, "text.no_field", "no text in the field text", "prompt and completion"),
        ({"question": "a", "id": "b"}, "text.no_field", "no text in the field text", "prompt and completion"),
        ({"txt": "a"}, "text.no_field", "no text in the field text", "did you mean `text_field` txt?"),
    ],
)
def test_a_first_record_of_no_kind_says_why(tmp_path, record, id, said, hint):
    with pytest.raises(BadTextError) as caught:
        read(write(tmp_path, record))
    assert caught.value.id == id
    assert f"line 1{':' if id == 'text.bad_example' else ' has'} {said}" in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("key", "without", "with_loss"),
    [("weight", 0, 1), ("masked", True, False), *((key, False, True) for key in ("train", "training", "loss"))],
)
def test_answers_that_trainers_give_no_loss_are_told(tmp_path, key, without, with_loss):
    records = [
        {"messages": [USER, {**HELLO, key: without}, USER, {**HELLO, key: with_loss}]},
        {"messages": [{**USER, key: without}, {**HELLO, key: with_loss}]},  # a question is not scored anyway
        {"messages": [USER, {**HELLO, key: None}]},
    ]
    _, source = read(write(tmp_path, *records))
    told = f"1 record with messages of {key} {json.dumps(without)}, which are scored all the same"
    assert [told in line for line in source.notices] == [False, True]


def test_unwanted_answers_of_kto_are_told(tmp_path):
    answers = [{"prompt": "a", "completion": "b", "label": label} for label in (True, False, False, 0, None)]
    _, source = read(write(tmp_path, *answers))
    assert "2 records with label false, as KTO marks unwanted answers, scored like the others" in source.notices[1]
    assert len(read(write(tmp_path, answers[0]))[1].notices) == 1


def test_template_arguments_belong_to_the_conversation_and_stay_a_field(tmp_path):
    record = {"prompt": [USER], "chosen": [HELLO], "rejected": [NO], "chat_template_kwargs": {"enable_thinking": False}}
    (document,), _ = read(write(tmp_path, record))
    for side in (document.example.chosen, document.example.rejected):
        assert side.template_values == {"enable_thinking": False}
    assert json.loads(document.fields) == {"chat_template_kwargs": {"enable_thinking": False}}
    assert "template_values" in example_to_json(document.example)
    assert "template_values" not in example_to_json(Conversation((USER, HELLO)))


def test_records_nested_deeply_are_read_or_refused(tmp_path):
    def nested(depth):
        tools = '[{"a": ' + "[" * depth + "]" * depth + "}]"
        return write(tmp_path, '{"messages": [{"role": "user", "content": "Hi"}], "tools": ' + tools + "}")

    (document,), _ = read(nested(100), newlines="lf")
    assert memory_of(document.example) > 5000
    found = {
        message.split(": line 1 ")[1].split(":")[0]
        for depth in range(100, 1000, 20)
        if (message := failure(nested(depth)))
    }
    assert {"is nested too deeply"} <= found <= {"is nested too deeply", "is not JSON"}


def failure(path):
    """Return the message with which a text is refused, or None."""
    try:
        read(path, newlines="lf")
    except BadTextError as error:
        return error.message
    return None


def test_line_ends_of_messages_are_turned_into_lf_on_demand(tmp_path):
    record = {"messages": [{"role": "user", "content": "a\r\nb"}], "id": "x\r\n"}
    (document,), _ = read(write(tmp_path, record), newlines="lf")
    assert document.example.messages[0]["content"] == "a\nb"
    assert json.loads(document.fields) == {"id": "x\r\n"}
    assert read(write(tmp_path, record))[0][0].example.messages[0]["content"] == "a\r\nb"


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.ndjson", "a.parquet"])
def test_every_format_holds_the_same_records(tmp_path, name):
    records = [CHAT | {"id": 1, "score": 0.5}, {"messages": [USER, NO], "id": 2, "score": None}]
    documents, source = read(write(tmp_path, *records, name=name))
    assert [document.example.messages[1] for document in documents] == [HELLO, NO]
    assert [document.line for document in documents] == [1, 2]
    assert [json.loads(document.fields)["id"] for document in documents] == [1, 2]
    assert source.kind is DataKind.CHAT


def test_an_array_of_conversations_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([CHAT, {"messages": [USER, NO]}], indent=1))
    assert [document.example.messages[1] for document in read(path)[0]] == [HELLO, NO]


def test_parquet_holds_plain_text_too_and_values_that_json_has_not(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["One.", "Two."], "n": [float("nan"), 1.0], "raw": [b"\xff", b"a"], "no": [None, None],
                      "day": pa.array([0, 1], pa.date32()), "more": [{"a": None, "b": [1]}, None]})  # fmt: skip
    pq.write_table(table, path)
    documents, source = read(path)
    assert [(document.text, document.line) for document in documents] == [("One.", 1), ("Two.", 2)]
    assert json.loads(documents[0].fields) == {
        "n": "NaN", "raw": "\ufffd", "no": None, "day": "1970-01-01", "more": {"b": [1]},
    }  # fmt: skip
    assert source.kind is DataKind.TEXT
    assert [document.text for document in read(path, text_field="day")[0]] == ["1970-01-01", "1970-01-02"]


@pytest.mark.parametrize("cut", [-9, 100, 0])
def test_broken_parquet_is_refused_in_one_line(tmp_path, cut):
    path = write(tmp_path, *[CHAT] * 50, name="a.parquet")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadTextError) as caught:
        read(path)
    assert caught.value.id == "text.unreadable"
    assert caught.value.message.startswith(f"{path}: cannot be read: ")
    assert "\n" not in caught.value.message


def test_a_bad_row_of_parquet_is_named(tmp_path):
    path = write(tmp_path, CHAT, {"messages": []}, name="a.parquet")
    with pytest.raises(BadTextError, match="row 2: messages holds no message"):
        read(path)


def test_rows_of_parquet_count_as_bytes_of_the_text(tmp_path):
    path = write(tmp_path, *[CHAT] * 50, name="a.parquet")
    with pytest.raises(Exception, match="more than 100 bytes") as caught:
        read(path, max_bytes=100)
    assert caught.value.id == "text.too_large"


def test_the_identity_of_a_text_follows_examples_and_spans(tmp_path):
    def identity(*records, change=None):
        source = open_text(write(tmp_path, *records))
        if change is None:
            return fingerprint(source)
        documents = [replace(document, **change) for document in source.documents()]
        held = StringSource(())
        held.documents = lambda: iter(documents)
        return fingerprint(held)

    pair = {"prompt": "p", "chosen": "a", "rejected": "b"}
    hashes = [
        identity(CHAT),
        identity({"messages": [USER, NO]}),
        identity(CHAT | {"tools": [{"name": "f"}]}),
        identity({"prompt": [USER], "completion": [HELLO]}),
        identity(pair),
        identity(pair | {"prompt": "q"}),
        identity(pair | {"chosen": "b", "rejected": "a"}),
        identity(CHAT, change={"text": "Hi", "spans": (Span(2, 0, "user", Part.CONTENT),)}),
        identity(CHAT, change={"text": "Hi", "spans": (Span(2, 0, "user", Part.CONTENT, scored=False),)}),
        identity(CHAT, change={"example": None}),
    ]
    assert len(set(hashes)) == len(hashes)
    assert identity(CHAT) == hashes[0]


def test_plain_text_keeps_its_identity(tmp_path):  # it names stored runs and audited texts
    (tmp_path / "a.txt").write_text("One.\n")
    assert fingerprint(open_text(tmp_path / "a.txt")) == (
        "9b9aa9f4eab0359a7a06ccfbd918cec285334584d8d8fcae9668b5b812a55e58"
    )


def test_what_no_template_has_rendered_is_not_scored(tmp_path):
    document = read(write(tmp_path, CHAT))[0][0]
    with pytest.raises(TextError) as caught:
        document.scorable()
    assert caught.value.id == "text.not_rendered"
    assert replace(document, text="Hi", spans=(Span(2, 0, "user", Part.CONTENT),)).scorable() == "Hi"
    assert replace(document, text="Hi", example=None).scorable() == "Hi"


def test_a_long_text_is_not_held_in_memory(tmp_path):
    source = open_text(write(tmp_path, *[CHAT] * 1000))
    held = [weakref.ref(document.example) for document in source.documents()]
    assert sum(example() is not None for example in held) <= 1
    first = next(islice(source.documents(), 1))
    assert 500 < memory_of(first.example) < 2000  # two messages of two short strings
