"""What is wrong with a text, by cause: planted and clean examples, what places cost, and how they look."""

import base64
import itertools
import re
from collections import Counter

import numpy as np
import pytest
from fake_runs import LN2, Doc

from lossprobe.analysis.defects.by_heart import find_by_heart
from lossprobe.analysis.defects.controls import find_controls
from lossprobe.analysis.defects.defects import find_defects
from lossprobe.analysis.defects.encoded import find_encoded
from lossprobe.analysis.defects.endings import Endings
from lossprobe.analysis.defects.kept_hashes import KeptHashes
from lossprobe.analysis.defects.line_ends import find_line_ends
from lossprobe.analysis.defects.markup import find_markup
from lossprobe.analysis.defects.mojibake import find_mojibake
from lossprobe.analysis.defects.options import DefectOptions
from lossprobe.analysis.defects.page import TextPage
from lossprobe.analysis.defects.repeats import Repeats
from lossprobe.analysis.defects.secrets import find_secrets, without_secrets
from lossprobe.analysis.defects.templates import find_template_strings
from lossprobe.analysis.defects.token_blocks import DocumentTokens
from lossprobe.analysis.defects.word_hashes import parts_of, runs_of, words_of
from lossprobe.errors import UsageError

RANDOM = np.random.default_rng(7)
BLOB = base64.b64encode(RANDOM.bytes(90)).decode()
DIGEST = RANDOM.bytes(32).hex()


def page(text: str) -> TextPage:
    return TextPage(0, text.encode())


def found(find, text: str) -> list[tuple[str, str]]:
    """Return what a cause finds in a text: the characters, and the detail."""
    data = text.encode()
    return [(data[place.start : place.stop].decode(), place.detail) for place in find(page(text))]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("Windows-1252", "cp1252"), ("Latin-1", "latin-1"), ("Mac Roman", "mac_roman"), ("Windows-1251", "cp1251"),
     ("code page 437", "cp437"), ("Windows-1250", "cp1250"), ("KOI8-R", "koi8-r"), ("code page 866", "cp866")],
)  # fmt: skip
def test_a_wrong_decoding_is_named_and_undone(name, codec):
    for meant in ("Привет", "Ελληνικά", "größer"):
        wrong = meant.encode().decode(codec, "replace")
        if "\ufffd" in wrong or (codec in ("koi8-r", "cp866") and meant.startswith("g")):
            continue
        (place,) = find_mojibake(page(f"He said {wrong}, then left."))
        assert (place.detail, place.repaired) == (f"UTF-8 read as {name}", re.sub(r"[ -~]+", "", meant))


def test_wrong_quotes_are_found_with_the_byte_that_was_lost():
    text = "â€œYesâ€ she said, and it couldnâ€™t â€” no"
    details = Counter(detail for _, detail in found(find_mojibake, text))
    assert details == {"UTF-8 read as Windows-1252": 3, "UTF-8 read as Windows-1252, a byte lost": 1}
    assert [place.repaired for place in find_mojibake(page(text))] == ["“", "", "’", "—"]


def test_the_encoding_that_explains_most_of_a_document_is_named():
    wrong = "It’s “fine” — naïve café".encode().decode("cp1250")
    assert {detail for _, detail in found(find_mojibake, wrong)} == {"UTF-8 read as Windows-1250"}


def test_other_damage_of_characters():
    twice = "it’s".encode().decode("cp1252").encode().decode("cp1252")
    (place,) = find_mojibake(page(twice))
    assert (place.detail, place.repaired) == ("UTF-8 read as Windows-1252, twice", "’")
    western = "Привет мир, проверка".encode("cp1251").decode("cp1252")
    assert {detail for _, detail in found(find_mojibake, western)} == {"Windows-1251 read as Windows-1252"}
    assert [place.repaired for place in find_mojibake(page(western))] == ["Привет", "проверка"]
    assert found(find_mojibake, "so \ufffd\ufffd it is") == [("\ufffd\ufffd", "bytes lost (U+FFFD)")]
    assert found(find_mojibake, "a 锟斤拷 b") == [("锟斤拷", "U+FFFD in UTF-8 read as GBK")]


@pytest.mark.parametrize(
    "text",
    ["It’s “fine” — naïve café, 10 £, 20 °C, €5", "CAFÉ” et «À propos», ÉCOLE… “Ça”", "Україна, Рівне; «Їжак» № 5",
     "Żółta łódź płynie; Âge, Ăştia sunt", "São Paulo, ÑANDÚ®, Straße, ÜBER®, MÜLLER™",
     "日本語のテキスト、한국어 텍스트", "壓縮模式；静默模式，編輯的條目", "ok么, bug没, A没有B，每个猫",
     "ÀÁÂÃÄÅÆÇ ••••••••• ————————— «««««»»»»»", "Øøåæ ÄÖÜäöüßéèê",
     "регуларни изрази, преглед на резултата, саксонски, табулации; неправилно име на специален файл",
     "селувасан, умбугарла, секундтан, содржател, тогтоосон, тогтолцоо",
     r"\fIДІАПАЗОН\fR", "Er sagte »Über alles«, »ß«",
     "En ”ä”, ”ü” och ”Åh”; –à, —é, “ö” ve",
     "Ελληνικά κείμενα, Привет, мир!", "├── file\n│   └── other", "π≈3.14±0.01 √2 ½ ×", "ÀÁÂÃÄÅ àáâãäå", "👩‍👩‍👧 नमस्ते"],
)  # fmt: skip
def test_right_characters_are_no_mojibake(text):
    assert found(find_mojibake, text) == []


@pytest.mark.parametrize("text", ["Привет, как дела?", "今天天气很好，我们去公园散步。然后回家喝茶", "für Müller"])
def test_utf_8_that_was_read_as_gbk_is_named_and_undone(text):
    places = list(find_mojibake(page(f"so: {text.encode().decode('gbk', 'replace')} (end)")))
    assert {place.detail for place in places} <= {"UTF-8 read as GBK", "bytes lost (U+FFFD)"}
    meant = "".join(place.repaired for place in places)
    assert set(meant) <= set(text)
    assert len(meant) >= 0.6 * sum(not letter.isascii() for letter in text)


def test_chinese_and_korean_that_was_read_as_western_is_named():
    chinese = "今天天气很好，我们去公园散步"
    (place,) = find_mojibake(page(f"so: {chinese.encode('gbk').decode('latin-1')} ok"))
    assert (place.detail, place.repaired) == ("GBK read as Windows-1252", chinese)
    korean = "so: 공원에갔습니다 ok".encode("euc-kr").decode("cp1252")
    assert [detail for _, detail in found(find_mojibake, korean)] == ["GBK or EUC-KR read as Windows-1252"]


def test_a_byte_that_was_replaced_is_one_place_with_what_stands_before_it():
    wrong = "“Yes”".encode().decode("cp1252", "replace")
    assert found(find_mojibake, wrong)[1:] == [("â€\ufffd", "UTF-8 read as Windows-1252, a byte lost")]


def test_one_wrong_decoding_does_not_make_chance_evidence():
    text = "Пример: ╨┐╤А╨╕╨▓╨╡╤В. Правилно име на специален файл, без значение и неправилно"
    assert found(find_mojibake, text) == [("╨┐╤А╨╕╨▓╨╡╤В", "UTF-8 read as code page 866")]


def test_tags_comments_and_entities_are_markup():
    text = '<p>Hi&nbsp;there</p>\n<br/> and <a href="x">y</a> <!-- z --> &#8217;'
    assert [piece for piece, _ in found(find_markup, text)] == [
        "<p>", "</p>\n<br/>", '<a href="x">', "</a> <!-- z -->", "&nbsp;", "&#8217;",
    ]  # fmt: skip


def test_tags_in_capitals_in_json_and_around_single_letters_are_markup():
    text = '<B>bold</b> <td>C</td> {"html": "<div class=\\"x\\">y<\\/div>"} vitamin <b>x</b><o:p></o:p>'
    assert [piece for piece, _ in found(find_markup, text)] == [
        "<B>", "</b> <td>", "</td>", '<div class=\\"x\\">', "<\\/div>", "<b>", "</b><o:p></o:p>",
    ]  # fmt: skip
    assert [piece for piece, _ in found(find_markup, "a <b> in a <body> </body>")] == ["<body> </body>"]


@pytest.mark.parametrize(
    "text",
    [
        "if a <b and c> d",
        "go to <label> then",
        "mail <ralf@cs.cmu.edu> AT&T; x",
        "the tag `<br>` breaks",
        "see C<p> in POD",
        "usage: convert <input> <source> or <img> and <col>|<text>",
    ],
)
def test_other_angles_are_no_markup(text):
    assert found(find_markup, text) == []


SECRETS = (
    "AKIAABCDEFGHIJKLMNOP", "ghp_" + "a1B2" * 9, "sk-proj-" + "Ab3" * 12, "hf_" + "aB" * 17,
    "xoxb-1234567890-abcdefghij",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N", "postgres://bob:hunter22@db.example.org",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7\n-----END RSA PRIVATE KEY-----",
)  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_found_by_shape_and_never_shown_whole(make_run, secret):
    assert [piece for piece, _ in found(find_secrets, f"the key is {secret}. Next")] == [secret.rstrip(".")]
    shown = without_secrets(f"key {secret} end".encode()).decode()
    assert shown == f"key {secret[:6]}*** end"
    result = find_defects(run_of(make_run, f"the key is {secret} and {BLOB}", bits=20))
    printed = result.places.to_csv() + result.table.to_csv() + result.finding
    assert secret not in printed
    assert secret[6:14] not in printed


def test_common_words_are_no_secrets():
    assert found(find_secrets, "task-force, risk-averse sk-learn https://a.org/b:c@d ghp_short api_key = None") == []


@pytest.mark.parametrize(
    "text",
    [
        "access_token = get_access_token_from_v2_endpoint(x)",
        'if data.startswith("-----BEGIN RSA PRIVATE KEY-----"): raise ValueError',
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "div.sk-toggleable__content-2-estimator sk-learn-tutorial-for-beginners-2023",
        "http://user:password@host.org https://bob:$PASS@host.org ftp://a:***@host.org http://u:{pw}@h.org http://u:%s@h",
    ],
)
def test_calls_headers_slugs_and_placeholders_are_no_secrets(text):
    assert found(find_secrets, text) == []


def test_an_address_with_a_password_alone_and_a_key_of_small_letters_are_secrets():
    assert len(found(find_secrets, f"redis://:p4ssw0rd@cache.example.org and sk-{DIGEST[:32]}")) == 2


def test_data_in_letters_is_found_and_paths_and_numbers_are_not():
    pairs = " ".join(f"{byte:02x}" for byte in RANDOM.bytes(24))
    text = f"a {BLOB} b {DIGEST} c {pairs} d \\x9a\\xf3\\x01\\x17 e"
    assert Counter(detail for _, detail in found(find_encoded, text)) == Counter(
        ["base64", "hexadecimal", "pairs of hexadecimal digits", "escapes"]
    )
    number = "40238726007709377354370243392300398571937486421071"
    clean = f"{number} /usr/share/lib/python3/dist-packages/numpy/core/src/multiarray {'-' * 60} {'a' * 64} {'0f' * 32}"
    assert found(find_encoded, clean) == []
    address = "http://a.example.org/Texts/LFBooks/Herbert0120/CompulsionByState/HiddenInAPath"  # words
    assert found(find_encoded, f"at: {address}\n") == []


def test_base64_above_a_line_of_hexadecimal_digits_is_found_too():
    for above, below in ((BLOB, DIGEST), (DIGEST, BLOB)):
        text = f"key\n{above}\n{below}\nend"
        places = sorted(find_encoded(TextPage(0, text.encode())), key=lambda place: place.start)
        assert [text[place.start : place.stop].strip() for place in places] == [above, below]
        assert {place.detail for place in places} == {"base64", "hexadecimal"}


def test_nearly_all_random_base64_is_found():
    runs = [base64.b64encode(RANDOM.bytes(30)).decode() for _ in range(2000)]  # 40 characters, the shortest that count
    missed = sum(not found(find_encoded, f"key {run} end") for run in runs)
    assert missed <= 30  # 1.5 %


LINES = [BLOB[start : start + 60] for start in (0, 60)] + ["Ab3/", "q7Q="]


@pytest.mark.parametrize(
    ("before", "between", "after"),
    [
        ("-----BEGIN CERTIFICATE-----\n", "\n", "\n-----END CERTIFICATE-----\n"), ("  ", "\n  ", "\n  -----END X-----"),
        ("> ", "\n> ", "\n> Regards\n"),
        ('"cert": "', "\\n", '\\n-----END X-----\\n"'),
        ("\r\n", "\r\n", "\r\n\r\nYours"),
        ('x = ("', '"\n     "', '")\nreturn'), ('x = "', '" +\n "', '";'), ("a ", "\n", "\nEnd\nof it"),
    ],
)  # fmt: skip
def test_the_lines_of_a_blob_are_one_place_that_ends_with_it(before, between, after):
    for lines in (LINES[:2], [*LINES[:2], LINES[2] + LINES[3]], [*LINES[:2], LINES[3]]):
        blob = between.join(lines)
        assert found(find_encoded, before + blob + after) == [(blob, "base64")]


def test_bytes_are_found_as_dumps_and_arrays_show_them():
    data = RANDOM.bytes(32)
    groups = " ".join(data[at : at + 2].hex() for at in range(0, 16, 2))
    halves = f"{data[:8].hex(' ')}  {data[8:16].hex(' ')}"
    array = ",\n  ".join(f"0x{byte:02x}" for byte in data)
    for piece, detail in ((groups, "hexadecimal"), (halves, "pairs of hexadecimal digits"), (array, "array of bytes")):
        assert found(find_encoded, f"00000000: {piece}  |...|") == [(piece, detail)]
    assert found(find_encoded, "2019 2020 2021 2022 2023 2024 2025 2026 2027 " + "12 34 56 78 90 " * 4) == []


@pytest.mark.parametrize(
    "text",
    [
        "http://www.w3.org/TR/2006/REC-xml11-20060816/Overview/XML/NT/NameStartChar",
        "see <http://docs.org/docs/crypto/SSL_CTX_set/Options/V2/And/More/Of/Them>",
        "ossl_check_const_X509_VERIFY_PARAM_sk_type(sk) and THIS_IS_a_NAME_with_2_digits_and_More_Of_Them",
        "_ZN2v88internal12_GLOBAL__N_116InvokeParamsERKNS1_12InvokeParamsE",
        "role/73fbd2ce-aa30-494c-8788-1cee4EXAMPLE11 Some-Long-Page-Name-Of-2020-And-The-Next-Year-2021",
    ],
)
def test_addresses_names_and_numbers_of_things_are_no_data(text):
    assert found(find_encoded, text) == []


def test_data_that_the_model_foresees_is_no_defect(make_run):
    dear = find_defects(run_of(make_run, f"the sum {DIGEST} is right", bits=64 * 3.5))
    cheap = find_defects(run_of(make_run, f"the sum {DIGEST} is right", bits=64 * 1.5))
    assert (dear.table["cause"].tolist(), len(cheap.table)) == (["encoded-data"], 0)


@pytest.mark.parametrize(
    ("text", "detail"),
    [("a\x00\x00b", "NUL"), ("a\ufeffb", "byte-order mark"), ("soft\u00adhyphen", "soft hyphen"),
     ("a\x1b[31mb", "colours of a terminal"),
     ("a\u200bb", "zero width space"), ("a\u202eb", "mark of direction"), ("a\x85b", "control characters of Latin-1"),
     ("a\x0cb", "form feed")],
)  # fmt: skip
def test_invisible_characters_are_named(text, detail):
    assert [each for _, each in found(find_controls, text)] == [detail]


def test_zero_width_spaces_belong_between_words_without_blanks_and_nowhere_else():
    assert found(find_controls, "កម្មវិធី\u200bរុករក\u200bរូប สวัสดี\u200bครับ") == []
    assert len(found(find_controls, "the\u200b end 今天\u200b天气")) == 2


def test_text_in_utf_16_is_one_place_whose_nuls_count():
    for codec in ("utf-16-le", "utf-16-be"):
        data = "It was read as bytes.".encode(codec).decode("latin-1")
        (place,) = find_controls(page(f"so: {data}"))
        assert place.detail == "NUL beside every letter, as in UTF-16"
        assert len(place.spans) == 21
        assert {page(f"so: {data}").data[start] for start, _ in place.spans} == {0}
    assert [detail for _, detail in found(find_controls, "one\0two\0three")] == ["NUL", "NUL"]


def test_tabs_line_ends_joiners_and_marks_beside_arabic_are_no_control_characters():
    assert found(find_controls, "a\tb\r\nc 👩\u200d👧 مرحبا \u200f(abc)\u200e") == []


def test_line_ends_are_one_place_of_a_kind_and_count_alone(make_run):
    (place,) = find_line_ends(page("a\r\nb\r\nc\nd"))
    assert (place.start, place.stop, place.detail, place.spans) == (1, 6, "CR LF among LF", ((1, 3), (4, 6)))
    assert found(find_line_ends, "a\rb\rc") == [("\rb\r", "CR alone")]
    assert found(find_line_ends, "a\nb\n") == []
    doc = Doc([b"a", b"\r\n", b"long", b"\r\n"], ["first_token", 3, 9, 5])
    row = find_defects(make_run([doc])).table.set_index("cause").loc["line-ends"]
    assert (row["tokens"], row["mean_loss_nats"]) == (2, pytest.approx(4 * LN2, rel=1e-6))


def test_template_strings_are_found_and_what_looks_like_them_is_not():
    text = "<|im_start|>user [INST] x [/INST] </s>\n### Response:\nHi {{ prompt }} {% if a %} <start_of_turn>"
    assert len(found(find_template_strings, text)) == 8
    assert len(found(find_template_strings, "USER: hi\nASSISTANT: ho")) == 2
    clean = "a <b> [ASCII] {{ASCII}} USER: only\n## Response time\n# Instruction\n C<s> x<s>"
    assert [piece for piece, _ in found(find_template_strings, clean)] == ["<s>"]
    assert found(find_template_strings, "<p>so <s>old</s> new</p>") == []


@pytest.mark.parametrize(
    ("text", "strings"),
    [
        ("The answer is B</s>", ["</s>"]), ("so</think>", ["</think>"]), ("[gMASK]<sop>a", ["[gMASK]", "<sop>"]),
        ("<tool_call>{}</tool_call>", ["<tool_call>", "</tool_call>"]), ("<unused7>", ["<unused7>"]),
        ("User: a\nAssistant: b", ["User:", "Assistant:"]), ("### Input:\n1\n### Output:\n2", []),
        ("System: Linux\nUser: root", []), ("### Input:\n1\n### Response:\n2", ["### Input:", "### Response:"]),
    ],
)  # fmt: skip
def test_headings_and_speakers_that_other_texts_have_need_a_template_beside_them(text, strings):
    assert [piece for piece, _ in found(find_template_strings, text)] == strings


def test_words_have_the_same_hash_wherever_they_stand():
    text = "The quick fox; the QUICK fox — naïve?".encode()
    words = words_of(text)
    spelled = [text[a:b].decode().lower() for a, b in zip(words.starts, words.stops, strict=True)]
    assert spelled == ["the", "quick", "fox", "the", "quick", "fox", "naïve"]
    for one, other in itertools.combinations(range(len(spelled)), 2):
        assert (words.hashes[one] == words.hashes[other]) == (spelled[one] == spelled[other])
    runs = runs_of(words.hashes, 3)
    assert runs[0] == runs[3]
    assert len(set(runs.tolist())) == len(runs) - 1
    first, second, third = parts_of(words.hashes[:7], np.array([0, 3, 6])).tolist()
    assert first == second != third


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("今天，下雨abc了。ok", "今 天 下 雨 abc 了 ok"), ("“Où”\u00a0: l’été…", "Où l été"),
        ("カメラ（新）！", "カ メ ラ 新"), ("한국어 텍스트", "한국어 텍스트"), ("สวัสดี ครับ", "สวัสดี ครับ"),
        ("x\u3000y １２ ，z", "x y １２ z"), ("天", "天"), ("é", "é"), ("—", ""), ("a\u00b7b\u2014", "a b"),
    ],
)  # fmt: skip
def test_words_of_any_script_are_cut_at_its_own_blanks_and_marks(text, spelled):
    data = text.encode()
    words = words_of(data)
    assert [data[a:b].decode() for a, b in zip(words.starts, words.stops, strict=True)] == spelled.split()
    assert len(set(words.hashes.tolist())) == len(set(spelled.split()))


CHINESE = "今天天气很好，我们去公园散步。然后回家喝茶，孩子们在草地上玩耍，老人在树下聊天。"


def test_chinese_copies_and_passages_are_found():
    other = "学校里的图书馆新到了一批关于海洋生物的书，借书的学生排起了长队。"
    near = CHINESE.replace("老人", "大人")
    assert [(number, detail) for number, _, detail, _ in repeated(CHINESE, other, CHINESE, near)] == [
        (2, "exact copy of a document"), (3, "near copy of a document"),
    ]  # fmt: skip
    third = "昨天晚上下了一场大雪，整个村子都变成了白色，火车因此晚点三个小时，大人们忙着扫雪，"
    third += "路上的行人很少很少，商店关门了。"
    passage = "passage that stands elsewhere"
    assert repeated(CHINESE, other + third + CHINESE) == [(1, "duplicate", passage, 0)]
    assert repeated(CHINESE, other + third + CHINESE[:20]) == []


def test_a_row_of_digits_in_two_documents_is_no_passage():
    digits = " ".join("1234567890" * 4)
    assert repeated(f"{story(1)} {digits}", f"{story(2)} {digits}") == []


def story(number: int, size: int = 60) -> str:
    return " ".join(f"w{value}" for value in np.random.default_rng(number).integers(0, 5000, size)) + "."


def repeated(*texts: str) -> list[tuple[int, str, str, int | None]]:
    repeats = Repeats()
    for number, text in enumerate(texts):
        repeats.add(TextPage(number, text.encode()))
    return [
        (number, place.cause, place.detail, place.origin and place.origin[0])
        for number, places in sorted(repeats.found().items()) for place in places
    ]  # fmt: skip


def test_copies_are_found_with_what_they_are_copies_of():
    near = story(1).replace("w", "q", 3)
    assert repeated(story(1), story(2), story(1).upper(), near) == [
        (2, "duplicate", "exact copy of a document", 0), (3, "duplicate", "near copy of a document", 0),
    ]  # fmt: skip
    inside = " ".join(story(1).split()[10:40])
    passage = "passage that stands elsewhere"
    assert repeated(story(1), f"{story(2)} {inside} {story(3)}") == [(1, "duplicate", passage, 0)]
    assert repeated(story(1), f"{story(2)} {' '.join(inside.split()[:20])} {story(3)}") == []
    assert repeated(f"{story(1)} {story(2)} {story(1)}") == [(0, "duplicate", passage, 0)]


def test_a_changed_copy_of_a_changed_copy_is_found():
    words = story(1).split()
    changed = [f"a{number}" if number % 20 == 3 else word for number, word in enumerate(words)]
    again = [f"b{number}" if number % 20 == 13 else word for number, word in enumerate(changed)]
    texts = [" ".join(each) for each in (words, changed, again)]
    runs = [{tuple(each[start : start + 5]) for start in range(len(each) - 4)} for each in (words, changed, again)]
    of_original, of_copy = (len(runs[2] & other) / len(runs[2] | other) for other in runs[:2])
    assert of_original < 0.4 < 0.5 < of_copy
    assert [(document, of) for document, _, detail, of in repeated(*texts) if "near" in detail] == [(1, 0), (2, 1)]


def test_lines_of_three_documents_are_boilerplate_and_those_of_two_are_not():
    line = "All rights reserved by the owner."
    texts = [f"{story(number)}\n{line}\n" for number in range(3)]
    assert repeated(*texts) == [
        (0, "boilerplate", "lines of several documents", None), (1, "boilerplate", "lines of several documents", 0),
        (2, "boilerplate", "lines of several documents", 0),
    ]  # fmt: skip
    assert repeated(*texts[:2]) == []


def test_with_few_hashes_kept_long_copies_are_still_found():
    texts = [story(number, 600) for number in range(6)]
    repeats = Repeats(runs=KeptHashes(most=400))
    for number, text in enumerate([*texts, texts[2].replace("w", "v", 9)]):
        repeats.add(TextPage(number, text.encode()))
    places = repeats.found()
    assert repeats.runs.share < 0.2
    assert [(number, place[0].origin[0]) for number, place in places.items()] == [(6, 2)]


def endings_of(*texts: str) -> list[tuple[int, str, str]]:
    endings = Endings()
    for number, text in enumerate(texts):
        endings.add(TextPage(number, text.encode()))
    return [(number, place.cause, text_of(texts[number], place)) for number, place in endings.found()]


def text_of(text: str, place) -> str:
    return text.encode()[place.start : place.stop].decode()


def test_cut_documents_stand_out_among_finished_ones():
    whole = [story(number) for number in range(22)]
    assert endings_of(*whole, "and so " * 12 + "they unfort") == [(22, "truncated", "unfort")]
    assert endings_of(*whole, "and so " * 12 + "there were apples,\n") == [(22, "truncated", ",\n")]
    assert endings_of(*whole, "and so " * 12 + "he said “yes.”", "and so " * 12 + "(all)") == []
    assert endings_of(*(text.rstrip(".") for text in whole)) == [], "headings, verses or code"


def test_empty_documents_are_always_told_and_tiny_ones_among_long_ones():
    whole = [story(number) for number in range(3)]
    assert endings_of(*whole, " \n", "n/a") == [(3, "tiny-document", " \n"), (4, "tiny-document", "n/a")]
    assert endings_of("yes", "no", "") == [(2, "tiny-document", "")]


def test_documents_without_blanks_are_no_tiny_ones_and_their_ends_are_judged():
    whole = [story(number) for number in range(22)]
    thai = "วันนี้อากาศดีมากเราจึงไปเดินเล่นที่สวนสาธารณะใกล้บ้าน"
    assert endings_of(*whole, CHINESE, thai, thai * 10) == []
    assert endings_of(*whole, "好的", "ดี") == [(22, "tiny-document", "好的"), (23, "tiny-document", "ดี")]
    assert endings_of(*whole, CHINESE + "后来他们")[0][1] == "truncated"


def known(text: str, losses, ids=None) -> list[str]:
    data = text.encode()
    spans = [match.span() for match in re.finditer(rb"\s*\S+", data)]
    starts, stops = np.array(spans, np.int64).T
    numbers = np.arange(len(spans), dtype=np.int32) if ids is None else np.array(ids, np.int32)
    tokens = DocumentTokens(0, numbers, starts, stops, np.array(losses, float))
    return [text_of(text, place) for place in find_by_heart(TextPage(0, data), tokens)]


def test_a_stretch_of_low_loss_is_known_by_heart():
    losses = [3.0] * 20 + [0.01] * 60 + [3.0] * 20
    text = story(5, 100)
    (stretch,) = known(text, losses)
    assert stretch.split() == text.split()[20:80]
    assert known(text, [3.0] * 20 + [0.01] * 20 + [3.0] * 60) == [], "too short"
    assert known(text, [0.2] * 100) == [], "not near enough to 0"
    assert known(text, [np.nan] * 20 + [0.01] * 20 + [np.nan] * 60) == []


def test_what_is_said_before_or_repeats_itself_is_not_known_by_heart():
    passage = story(5, 50)
    assert known(f"{passage} {passage}", [3.0] * 50 + [0.01] * 50) == []
    assert known(" ".join(["one two"] * 60), [3.0] * 10 + [0.01] * 110, [0, 1] * 60) == []


def run_of(make_run, *texts: str, bits: float = 2.0, **choices):
    """Return a run whose tokens are words, of which each costs so many bits."""
    docs = []
    for number, text in enumerate(texts):
        pieces = [match.encode() for match in re.findall(r"\s*\S+|\s+", text)] or [b"\n"]
        docs.append(Doc(pieces, [bits] * len(pieces), line=number + 1))
    return make_run(docs, copies=True, **choices)


def test_shares_and_means_count_each_token_once(make_run):
    pieces = [b"x", b" \xc3\xa2\xe2\x82\xac\xe2\x84\xa2", b" <p>", b" y", b" </p>", b" z"]  # â€™
    result = find_defects(make_run([Doc(pieces, ["first_token", 8, 4, 1, 2, 3])]))
    table = result.table.set_index("cause")
    assert table.loc["mojibake", ["places", "tokens"]].tolist() == [1, 1]
    assert table.loc["markup", ["places", "tokens"]].tolist() == [2, 2]
    assert table["share_of_loss"].to_dict() == pytest.approx({"mojibake": 8 / 18, "markup": 6 / 18}, rel=1e-6)
    assert result.share_of_tokens == pytest.approx(3 / 5)
    assert result.share_of_loss == pytest.approx(14 / 18, rel=1e-6)
    assert result.rest_mean_loss_nats == pytest.approx(2 * LN2, rel=1e-6)
    assert result.table["cause"].tolist() == ["mojibake", "markup"], "the dearest first"


def test_places_say_file_line_bytes_and_the_loss_of_the_first_copy(make_run):
    run = run_of(make_run, f"{story(1)}", "one\ntwo caf\u00c3\u00a9 three", f"{story(1)}")
    places = find_defects(run).places.set_index("cause")
    row = places.loc["mojibake"]
    assert (row["document"], row["line"], row["byte_start"], row["byte_stop"]) == (1, 3, 11, 15)
    assert (row["meant"], row["excerpt"]) == ("é", "one\\ntwo caf⟦Ã©⟧ three")
    copy = places.loc["duplicate"]
    assert (copy["document"], copy["copy_of"], copy["first_loss_nats"]) == (2, 0, pytest.approx(2 * LN2, rel=1e-6))


def test_hostile_text_is_made_visible(make_run):
    result = find_defects(run_of(make_run, "a \x1b[2J b \u202e c <script>x</script> d"))
    printed = result.places.to_csv() + result.table.to_csv() + result.finding
    assert all(character.isprintable() for character in printed.replace("\n", ""))


def test_without_text_the_bytes_of_the_tokens_are_looked_at(make_run):
    texts = (story(1), f"one <br> caf\u00c3\u00a9 {BLOB}", story(1))
    kept, bare = (find_defects(run_of(make_run, *texts, bits=20, keep_text=each)) for each in (True, False))
    assert kept.places.equals(bare.places)
    assert "the run has no text" in bare.notes[0]
    assert bare.documents == 3


def test_clean_text_has_no_defects(make_run):
    result = find_defects(run_of(make_run, story(1), story(2)))
    assert (result.finding, len(result.places), len(result.table)) == ("no defect found in 2 documents", 0, 0)
    assert result.exit_code == 0


def test_one_cause_can_be_listed_and_causes_can_fail(make_run):
    run = run_of(make_run, "x <br> caf\u00c3\u00a9 <br> y")
    result = find_defects(run, DefectOptions(cause="mojibake", fail_on=("markup", "secret")))
    assert (set(result.places["cause"]), set(result.table["cause"])) == ({"mojibake"}, {"mojibake", "markup"})
    assert (result.failed, result.exit_code, result.places_found) == (["markup"], 10, 3)
    assert find_defects(run, DefectOptions(fail_on=("any",))).failed == ["mojibake", "markup"]
    with pytest.raises(UsageError, match="mojibake"):
        find_defects(run, DefectOptions(cause="mojibak"))


def test_what_a_chat_template_wrote_is_no_defect(make_run):
    pieces = [b"<|im_start|>", b"user", b" see", b" <|im_end|>", b"<|im_end|>"]
    labels = [(0, "user", "header"), (0, "user", "header"), (0, "user", "content"), (0, "user", "content"),
              (0, "user", "end_of_turn")]  # fmt: skip
    result = find_defects(make_run([Doc(pieces, ["first_token", 1, 2, 3, 4], labels=labels)]))
    assert result.places["byte_start"].tolist() == [21]


def test_system_prompts_are_no_boilerplate_and_what_users_share_is(make_run):
    def conversation(number: int) -> Doc:
        system, user = " systems say this to all of them again and again" * 3, " shared words" * 12
        texts = ["<|im_start|>", system, user, f" {story(number, 30)}", "<|im_end|>"]
        labels = [(0, "system", "header"), (0, "system", "content"), (1, "user", "content"),
                  (2, "assistant", "content"), (2, "assistant", "end_of_turn")]  # fmt: skip
        losses = ["first_token", "masked", "masked", 3, 1]
        return Doc([text.encode() for text in texts], losses, labels=labels)

    result = find_defects(make_run([conversation(number) for number in range(4)]))
    assert result.table["cause"].tolist() == ["boilerplate"]
    assert all("systems" not in excerpt and "shared words" in excerpt for excerpt in result.places["excerpt"])
