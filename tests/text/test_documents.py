"""From bytes to documents: strict decoding, splitting with exact places, JSONL records, fingerprints."""

import gzip
import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lossprobe.errors import TextError, UsageError
from lossprobe.text.documents import Document, StringSource, open_text
from lossprobe.text.fingerprint import Fingerprint, fingerprint
from lossprobe.text.options import TextOptions
from lossprobe.text.splitting import separator_pattern, split_text, with_lf


def read(path, **options):
    source = open_text(path, TextOptions(**options))
    return list(source.documents()), source.notices


def write(tmp_path, data: bytes, name: str = "text.txt"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def refused(path, id, **options):
    with pytest.raises((TextError, UsageError)) as caught:
        read(path, **options)
    assert caught.value.id == id
    assert "\n" not in caught.value.message
    assert "\x1b" not in caught.value.message
    return caught.value


def test_an_empty_file_is_one_empty_document(tmp_path):  # T01: planning then finds nothing to score
    documents, notices = read(write(tmp_path, b""))
    assert [(d.text, d.line, d.byte_offset) for d in documents] == [("", 1, 0)]
    assert notices == []


def test_white_space_is_a_document_with_a_notice(tmp_path):  # T02
    path = write(tmp_path, b" \n\n")
    documents, notices = read(path)
    assert [d.text for d in documents] == [" \n\n"]
    assert notices == [f"{path}: nothing but white space"]


def test_a_byte_order_mark_is_removed_and_noted(tmp_path):  # T04
    path = write(tmp_path, b"\xef\xbb\xbfcaf\xc3\xa9")
    documents, notices = read(path)
    assert [(d.text, d.byte_offset) for d in documents] == [("café", 3)]
    assert notices == [f"{path}: byte-order mark removed"]


@pytest.mark.parametrize(
    ("data", "byte", "offset", "line"),
    [
        (b"ab\ncd\xe9f", 0xE9, 5, 2),  # Latin-1
        (b"\xc0\x80", 0xC0, 0, 1),  # an overlong NUL
        (b"a\n\n\xed\xa0\x80", 0xED, 3, 3),  # a surrogate
        (b"\xe2\x82", 0xE2, 0, 1),  # a character cut short at the end
        (b"x" * 70_000 + b"\r\n\xff", 0xFF, 70_002, 2),  # far into the file
        (b"\xef\xbb\xbf\xff", 0xFF, 3, 1),  # offsets count the byte-order mark
    ],
)
def test_invalid_utf8_names_byte_offset_and_line(tmp_path, data, byte, offset, line):  # T05
    message = refused(write(tmp_path, data), "text.not_utf8").message
    assert f"byte 0x{byte:02x} at offset {offset} (line {line}) is not valid UTF-8" in message


def test_invalid_utf8_in_a_jsonl_counts_from_the_start_of_the_file(tmp_path):
    first = b'{"text": "a"}\n\n'  # 15 bytes
    message = refused(write(tmp_path, first + b'{"text": "\xff"}', "a.jsonl"), "text.not_utf8").message
    assert "byte 0xff at offset 25 (line 3)" in message  # 15 + len('{"text": "')


@pytest.mark.parametrize("mark", [b"\xff\xfea\x00", b"\xfe\xff\x00a"])
def test_utf16_is_recognised(tmp_path, mark):  # T06
    error = refused(write(tmp_path, mark), "text.utf16")
    assert error.exit_code == 4
    assert "iconv" in error.hint


def test_nul_bytes_are_noted_up_to_one_percent(tmp_path):  # T07
    path = write(tmp_path, b"\0" + b"a" * 99)  # 1 of 100 is not over 1 %
    documents, notices = read(path)
    assert documents[0].text == "\0" + "a" * 99
    assert notices == [f"{path}: 1 NUL byte in the text"]
    assert "2 NUL bytes in 100 characters" in refused(write(tmp_path, b"\0\0" + b"a" * 98), "text.binary").message


def test_crlf_is_kept_unless_lf_is_asked_for(tmp_path):
    path = write(tmp_path, b"a\r\nb\rc\n")
    assert read(path)[0][0].text == "a\r\nb\rc\n"
    assert read(path, newlines="lf")[0][0].text == "a\nb\nc\n"


@pytest.mark.parametrize(
    ("split", "text", "pieces"),
    [
        ("blank-line", "\n\na\n\nb\n \t\n\n  c\n\n", [("a", 3, 2), ("b", 5, 5), ("  c", 8, 11)]),  # indentation stays
        ("blank-line", "a\r\n\r\nb\n", [("a", 1, 0), ("b\n", 3, 5)]),
        ("blank-line", "é\n\u3000\n漢", [("é", 1, 0), ("漢", 3, 7)]),  # a blank line may hold wide blanks
        ("line", "é\n\nb\r\nc\rd", [("é", 1, 0), ("b", 3, 4), ("c\rd", 4, 7)]),
        ("<eot>", "<eot>a<eot><eot>b", [("a", 1, 5), ("b", 1, 16)]),
        ("(?=#)", "#a\n#b", [("#a\n", 1, 0), ("#b", 2, 3)]),  # a separator may have no width
        ("line", "", []),
    ],
)
def test_pieces_between_separators(split, text, pieces):
    assert [(p.text, p.line, p.byte_offset) for p in split_text(text, split)] == pieces


SPLITS = st.sampled_from(["blank-line", "line", "x+", "(?=é)", "[\r\n]+"])
TEXTS = st.text(alphabet="a é漢😀x\t\n\r\u3000", max_size=40)


@given(TEXTS, SPLITS)
@example("a\r\n\r\r\nb", "blank-line")
def test_pieces_and_separators_rebuild_the_text(text, split):
    data, rebuilt, position = text.encode(), b"", 0
    pattern = separator_pattern(split)
    for piece in split_text(text, split):
        between = data[position : piece.byte_offset].decode()
        assert pattern.sub("", between) == ""  # nothing but separators is left out
        assert piece.line == 1 + data.count(b"\n", 0, piece.byte_offset)
        rebuilt += between.encode() + piece.text.encode()
        position = len(rebuilt)
    assert pattern.sub("", data[position:].decode()) == ""
    assert rebuilt == data[:position]


@given(TEXTS, SPLITS, st.booleans(), st.sampled_from(["keep", "lf"]))
@example("é\r\n\r\na", "blank-line", True, "lf")
@example("ax\r\nb", "x+", False, "lf")
def test_documents_point_to_their_place_in_the_file(tmp_path_factory, text, split, bom, newlines):
    data = b"\xef\xbb\xbf" * bom + text.encode()
    path = write(tmp_path_factory.mktemp("split"), data)
    documents, _ = read(path, split_documents=split, newlines=newlines)
    starts = [document.byte_offset for document in documents]
    for document, stop in zip(documents, [*starts[1:], len(data)], strict=False):
        there = data[document.byte_offset : stop].decode()
        assert (with_lf(there) if newlines == "lf" else there).startswith(document.text)
        before = data[: document.byte_offset].decode("utf-8-sig")
        assert document.line == 1 + (with_lf(before) if newlines == "lf" else before).count("\n")


def test_separators_are_counted_in_one_notice(tmp_path):
    write(tmp_path, b"a\n\nb\n\n", "1.txt")
    write(tmp_path, b"\n\n\n", "2.txt")
    documents, notices = read(tmp_path, split_documents="blank-line")
    assert [d.text for d in documents] == ["a", "b"]
    assert notices == [f"{tmp_path.name}: 7 bytes of separators belong to no document"]


@pytest.mark.parametrize(
    ("split", "core"), [("(", "missing )"), ("x*", "matches the empty string"), ("a{99999999999}", "")]
)
def test_bad_separators(tmp_path, split, core):
    error = refused(write(tmp_path, b"a"), "text.separator", split_documents=split)
    assert error.exit_code == 2
    assert core in error.message


def test_jsonl_records_become_documents_with_their_other_fields(tmp_path):
    lines = [
        {"id": 7, "text": "héllo\r\n", "tags": ["b", "a"]},
        {"text": ""},
        {"text": "two", "z": None, "a": 1.5},
    ]
    data = "\n\n".join(json.dumps(line) for line in lines).encode()
    documents, _ = read(write(tmp_path, data, "r.jsonl"), newlines="lf")
    assert [(d.text, d.line, d.byte_offset) for d in documents] == [("héllo\n", 1, -1), ("", 3, -1), ("two", 5, -1)]
    assert [d.fields for d in documents] == ['{"id": 7, "tags": ["b", "a"]}', "{}", '{"a": 1.5, "z": null}']


@pytest.mark.parametrize("name", ["r.jsonl", "R.NDJSON", "r.jsonl.gz"])
def test_the_name_says_that_lines_are_records(tmp_path, name):
    data = b'{"text": "a"}\n'
    path = write(tmp_path, gzip.compress(data) if name.endswith("gz") else data, name)
    assert [d.text for d in read(path)[0]] == ["a"]


def test_a_jsonl_with_a_very_long_path_is_still_a_jsonl(tmp_path):
    folder = tmp_path / ("d" * 120) / ("e" * 120)  # messages cut the path; what it holds must not depend on that
    folder.mkdir(parents=True)
    assert [d.text for d in read(write(folder, b'{"text": "a"}\n', "r.jsonl"))[0]] == ["a"]


@pytest.mark.parametrize("name", ["a.json", "B.JSON", "a.csv", "a.tsv", "a.json.gz"])
def test_records_that_are_scored_as_plain_text_are_told(tmp_path, name):
    data = b'{"text": "a cat"}\n'
    (tmp_path / "texts").mkdir()
    path = tmp_path / "texts" / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    documents, notices = read(path)
    assert [document.text for document in documents] == [data.decode()]
    assert notices == [
        f"{path}: scored as plain text, with brackets, keys and quotes; `text_field` NAME reads JSON records"
    ]
    assert read(path, text_field="text")[1] == []
    (tmp_path / "texts" / "z.csv").write_bytes(b"a,b\n")
    (tmp_path / "texts" / "z.txt").write_bytes(b"a b\n")
    assert [notice.split(": ")[0] for notice in read(tmp_path / "texts")[1]] == [f"{path} and 1 other file"]


def test_text_field_reads_any_file_as_records(tmp_path):
    path = write(tmp_path, b'{"body": "a", "text": "b"}\n', "r.txt")
    documents, _ = read(path, text_field="body")
    assert [(d.text, d.fields) for d in documents] == [("a", '{"text": "b"}')]


@pytest.mark.parametrize(
    ("line", "id", "core"),
    [
        ('{"text": "a"', "text.bad_record", "line 2 is not JSON: Expecting ',' delimiter at column 13"),
        ("[" * 100_000, "text.bad_record", "line 2 is not JSON"),
        ('{"text": "a", "n": ' + "1" * 5000 + "}", "text.bad_record", "line 2 is not JSON"),
        ('["text"]', "text.no_field", "line 2 has no text in the field text (found: list)"),
        ("{}", "text.no_field", "(found: no fields)"),
        ('{"body": "a", "\\u001b[2J": 1}', "text.no_field", "(found: body, \\x1b[2J)"),
        ('{"text": 5}', "text.no_field", "(found: text)"),
        ('{"text": "a\\ud800b"}', "text.surrogate", "line 2 holds half a surrogate pair at character 1"),
    ],
)
def test_bad_records_name_their_line(tmp_path, line, id, core):
    error = refused(write(tmp_path, b'{"text": "ok"}\n' + line.encode(), "r.jsonl"), id)
    assert error.exit_code == 4
    assert core in error.message


def test_fields_that_json_does_not_have_stay_readable(tmp_path):
    path = write(tmp_path, b'{"text": "a", "x": NaN, "y": 1e999, "z": "\\ud800", "u": "\\u00e9"}', "r.jsonl")
    fields = read(path)[0][0].fields
    assert json.loads(fields, parse_constant=pytest.fail) == {"x": "NaN", "y": "1e999", "z": "?", "u": "é"}


def test_a_text_is_read_the_same_way_twice(tmp_path):
    source = open_text(write(tmp_path, b"\xef\xbb\xbfa\n\nb"), TextOptions(split_documents="blank-line"))
    first = list(source.documents())
    notices = list(source.notices)
    assert list(source.documents()) == first
    assert source.notices == notices
    assert fingerprint(source) == fingerprint(source)


def test_strings_are_documents():
    source = StringSource(["a", "b"])
    assert [(d.text, d.source, d.line, d.byte_offset) for d in source.documents()] == [
        ("a", "strings", 1, 0),
        ("b", "strings", 1, 0),
    ]
    with pytest.raises(TextError, match="strings: string 2 holds half a surrogate pair at character 0"):
        fingerprint(StringSource(["a", "\udc80"]))


def digest(*documents: Document) -> str:
    running = Fingerprint()
    for document in documents:
        running.add(document)
    return running.hexdigest()


def test_the_fingerprint_sees_text_fields_boundaries_and_order():
    a, b = Document("ab", "f", 1, 0, '{"k": 1}'), Document("c", "f", 2, 3)
    variants = [
        (a, b),
        (b, a),
        (replace(a, text="a"), replace(b, text="bc")),  # a boundary moves
        (replace(a, text="abc"),),
        (replace(a, fields='{"k": 2}'), b),
        (replace(a, text='ab{"k": 1}', fields=None), b),  # text is not fields
        (a, b, replace(b, text="")),
    ]
    assert len({digest(*variant) for variant in variants}) == len(variants)
    assert digest(a, b) == digest(replace(a, source="g", line=9, byte_offset=9), b)  # the place is no part of it


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [("a.txt", '{"text": "a"}\n', True), ("a.txt", "{a\n", False), ("a.json", '{"a": 1}\n', False)],
)
def test_a_plain_text_that_begins_with_a_record_is_told(tmp_path, name, content, told):
    (tmp_path / name).write_text(content)
    source = open_text(tmp_path / name)
    assert [document.text for document in source.documents()] == [content]
    assert any("begins with a JSON record" in notice for notice in source.notices) == told
