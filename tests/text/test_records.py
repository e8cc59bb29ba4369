"""Files of records: JSON Lines, JSON arrays, nested fields, and everything bad in them found at once."""

import gzip
import json

import pytest

from lossprobe.errors import BadTextError
from lossprobe.text.documents import open_text
from lossprobe.text.fingerprint import fingerprint
from lossprobe.text.options import TextOptions

RECORDS = [{"id": 1, "text": "One."}, {"id": 2, "text": "Two\nlines."}]


def read(path, **options):
    source = open_text(path, TextOptions(**options))
    return list(source.documents()), source


def write(folder, name, content):
    path = folder / name
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def refused(path, id, **options):
    with pytest.raises(BadTextError) as caught:
        read(path, **options)
    assert caught.value.id == id
    assert caught.value.exit_code == 4
    return caught.value


@pytest.mark.parametrize("name", ["data.json", "data.JSON", "data.json.gz", "data.jsonl", "data.ndjson"])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_holds_the_records_that_json_lines_would(tmp_path, name, indent):
    lines, _ = read(write(tmp_path, "lines.jsonl", "\n".join(map(json.dumps, RECORDS))))
    array, source = read(write(tmp_path, name, "\ufeff" + json.dumps(RECORDS, indent=indent) + "\n"))
    assert [(d.text, d.fields, d.byte_offset) for d in array] == [(d.text, d.fields, d.byte_offset) for d in lines]
    assert [d.text for d in array] == ["One.", "Two\nlines."]
    assert not [notice for notice in source.notices if "plain text" in notice]


def test_each_record_of_an_array_has_the_line_on_which_it_begins(tmp_path):
    path = write(tmp_path, "a.json", '[\n  {"text": "a"},\n\n  {\n   "text": "b"\n  }, {"text": "c"}\n]\n')
    assert [(d.text, d.line) for d in read(path)[0]] == [("a", 2), ("b", 4), ("c", 6)]


def test_json_lines_under_the_name_of_json_are_records(tmp_path):  # what Dataset.to_json("x.json") writes
    documents, _ = read(write(tmp_path, "x.json", "\n".join(map(json.dumps, RECORDS)) + "\n"))
    assert [d.text for d in documents] == ["One.", "Two\nlines."]


@pytest.mark.parametrize(
    "content", ['{"name": "x", "version": 1}', '{\n "text": "x"\n}\n', "[1, 2]", '"text"', "[[1]]", ""]
)
def test_json_that_holds_no_records_is_plain_text_with_a_notice(tmp_path, content):
    path = write(tmp_path, "package.json", content)
    documents, source = read(path)
    assert [d.text for d in documents] == [content]
    assert f"{path}: scored as plain text, with brackets, keys and quotes" in source.notices[0]


def test_an_array_without_the_field_says_which_fields_it_has(tmp_path):
    path = write(tmp_path, "qa.json", json.dumps([{"question": "a", "answer": "b"}]))
    error = refused(path, "text.no_field")
    assert error.message == f"{path}: record 1 (line 1) has no text in the field text (found: question, answer)"
    assert [d.text for d in read(path, text_field="answer")[0]] == ["b"]


def test_an_empty_array_holds_no_document(tmp_path):
    assert read(write(tmp_path, "a.jsonl", "[]"))[0] == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[{"text": "a"}, {"text": "b"', "line 1 is not JSON: Expecting ',' delimiter at column 29"),
        ('[{"text": "a"}\n{"text": "b"}]', "line 2 is not JSON: Expecting ',' or ']' at column 1"),
        ('[{"text": "a"},\n]', "line 2 is not JSON: a comma before the closing bracket at column 1"),
        ('[{"text": "a"}] x', "line 1 is not JSON: Extra data at column 17"),
        ('[{"text": "a"}, ' + "[" * 100_000, "line 1 is not JSON:"),
    ],
)
def test_an_array_that_breaks_off_is_refused_or_read_so_far(tmp_path, content, says):
    path = write(tmp_path, "a.json", content)
    assert says in refused(path, "text.bad_record").message
    documents, source = read(path, skip_bad=True)
    assert documents[0].text == "a"
    assert source.skipped == {"file": 1}


def test_an_array_of_other_things_is_refused_by_element(tmp_path):
    error = refused(write(tmp_path, "a.json", '[{"text": "a"}, 7, null]'), "text.no_field")
    assert "2 bad records" in error.message
    assert [line.split(" has ")[1] for line in error.details] == ["no text in the field text (found: NoneType)"]


def test_dots_lead_into_objects(tmp_path):
    record = {"data": {"text": "Hi", "lang": "en"}, "a.b": "dotted", "id": 7}
    path = write(tmp_path, "a.jsonl", json.dumps(record))
    document = read(path, text_field="data.text")[0][0]
    assert (document.text, json.loads(document.fields)) == ("Hi", {"data": {"lang": "en"}, "a.b": "dotted", "id": 7})
    assert read(path, text_field="a.b")[0][0].text == "dotted"
    missing = refused(path, "text.no_field", text_field="data.txt")
    assert "(found: data.text, data.lang, a.b, id)" in missing.message
    assert "data, which holds an object" in refused(path, "text.no_field", text_field="data").message


def test_null_is_called_null(tmp_path):
    assert (
        "in the field text, which holds null ("
        in refused(write(tmp_path, "a.jsonl", '{"text": null}'), "text.no_field").message
    )


BAD = ['{"text": "a"}', "}", '{"txt": "b"}', '{"text": "\\ud800"}', "", '{"text": "c"}']


def test_all_bad_records_are_listed_at_once(tmp_path):
    path = write(tmp_path, "a.jsonl", "\n".join(BAD).encode() + b'\n{"text": "\xff"}\n')
    error = refused(path, "text.bad_record")
    assert error.message.startswith(f"4 bad records: {path}: line 2 is not JSON: ")
    assert [line.split(": ")[1].split(" ")[:2] for line in error.details] == [
        ["line", "3"],
        ["line", "4"],
        ["byte", "0xff"],
    ]
    assert "skip_bad" in error.hint


def test_skipped_records_are_counted_and_the_rest_is_read(tmp_path):
    path = write(tmp_path, "a.jsonl", "\n".join(BAD))
    documents, source = read(path, skip_bad=True)
    assert [d.text for d in documents] == ["a", "c"]
    assert source.skipped == {"record": 3}
    assert source.notices == [
        f"a: 3 bad records left out; the first: {path}: line 2 is not JSON: Expecting value at column 1"
    ]
    list(source.documents())  # a second reading counts anew
    assert source.skipped == {"record": 3}
    assert fingerprint(source) == fingerprint(open_text(write(tmp_path, "b.jsonl", "\n".join([BAD[0], BAD[5]]))))


def test_a_long_list_of_faults_is_cut_and_counted(tmp_path):
    error = refused(write(tmp_path, "a.jsonl", '{"txt": 1}\n' * 1000), "text.no_field")
    assert error.message.startswith("1,000 bad records: ")
    assert len(error.details) == 20
    assert error.details[-1] == "… and 980 more"
    assert "skip_bad" not in error.hint  # nothing would be left


def test_a_file_full_of_faults_leaves_room_for_those_of_others(tmp_path):
    write(tmp_path, "a.jsonl", '{"txt": 1}\n' * 1000)
    write(tmp_path, "b.txt", b"caf\xe9")
    write(tmp_path, "c.jsonl", '{"text": "cut o')
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    error = refused(tmp_path, "text.no_field")
    assert error.message.startswith("1,001 bad records and 2 bad files: ")
    places = [line.removeprefix(f"{tmp_path}/") for line in error.details]
    assert places[16] == f"… and 983 more in {tmp_path}/a.jsonl"
    assert [place.split(": ")[0] for place in places[17:]] == ["b.txt", "c.jsonl", "d.parquet"]
    assert "starting at column 10" in places[18]
    assert "`text_field`" in error.hint


def test_of_many_bad_files_the_first_are_listed(tmp_path):
    for number in range(30):
        write(tmp_path, f"{number:02}.jsonl", "}\n}")
    details = refused(tmp_path, "text.bad_record").details
    assert details[0] == f"… and 1 more in {tmp_path}/00.jsonl"
    assert details[-1] == "… and 10 other files with faults"


def test_bad_files_of_a_folder_are_listed_at_once_or_skipped(tmp_path):
    write(tmp_path, "a.txt", "Good.")
    write(tmp_path, "b.txt", b"caf\xe9")
    write(tmp_path, "c.pdf", b"%PDF-1.7")
    write(tmp_path, "d.bin", b"\0\0\0abc")
    (tmp_path / "e.gz").write_bytes(gzip.compress(b"x" * 1000)[:-20])
    error = refused(tmp_path, "text.not_utf8")
    assert error.message.startswith("4 bad files: ")
    assert len(error.details) == 3
    documents, source = read(tmp_path, skip_bad=True)
    assert [d.text for d in documents] == ["Good."]
    assert source.skipped == {"file": 4}


def test_what_is_too_large_is_no_bad_record(tmp_path):
    path = write(tmp_path, "a.jsonl", "{\n" + '{"text": "aaaaaaaaaa"}\n')
    from lossprobe.errors import TextError

    with pytest.raises(TextError) as caught:
        read(path, skip_bad=True, max_bytes=10)
    assert caught.value.id == "text.too_large"


@pytest.mark.parametrize("record", ['{"text": "a"},', '{"text": "a"} , '])
def test_a_comma_behind_a_record_is_named(tmp_path, record):
    path = write(tmp_path, "a.jsonl", f"{record}\n{record}\n")
    assert "line 1 is not JSON: a comma behind the record at column " in refused(path, "text.bad_record").message


@pytest.mark.parametrize(
    ("data", "id", "said"),
    [
        (json.dumps({"text": "a", "id": 7}, indent=1).encode(), "text.bad_record", "goes on in the next lines"),
        ('{"text": "a"}\n{"text": "b"}\n'.encode("utf-16"), "text.utf16", "looks like UTF-16"),
    ],
)
def test_what_makes_every_line_bad_is_told_once(tmp_path, data, id, said):
    path = write(tmp_path, "a.jsonl", data)
    error = refused(path, id)
    assert said in error.message
    assert not error.details
    good = tmp_path / "b.jsonl"
    good.write_text('{"text": "b"}')
    documents, source = read(tmp_path, skip_bad=True)
    assert ([document.text for document in documents], source.skipped) == (["b"], {"file": 1})
