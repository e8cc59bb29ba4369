"""Lines of TOML keys, held against `tomllib`: in the documents made here, each value tells the line of its key."""

import time
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossprobe.audit.config.toml_lines import MAX_DEPTH, key_lines, longest_key


def told_lines(value, path=()):
    """Yield the path of every key whose value is (or begins with) its own line, with the line."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from told_lines(inner, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, inner in enumerate(value):
            yield from told_lines(inner, (*path, index))
    elif isinstance(value, list):
        yield path, value[0]
        for index, inner in enumerate(value[1:], start=1):
            if isinstance(inner, dict):
                yield from told_lines(inner, (*path, index))
    else:
        yield path, int(str(value).split()[0])


def paths(value, path=()):
    """Yield the path of every key and of every table in an array."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in items:
        if isinstance(value, dict) or isinstance(inner, dict):
            yield (*path, step)
        yield from paths(inner, (*path, step))


def check(text):
    """Assert that every key of a document has the line on which it stands, and nothing else has one."""
    content = tomllib.loads(text)
    lines = key_lines(text)
    for path, line in told_lines(content):
        assert lines[path] == line, (text, path)
    assert set(lines) == set(paths(content))
    assert lines == key_lines(text.replace("\n", "\r\n"))
    return lines


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only = 1",
        "a = {b = \"\"\"1 \"\"\"\", c = 1}\nd = {e = '''2 ''''', f = 2}",
        "a = 1",
        "a=1#b=2\n\n'b.c' . \"d\" = 3 # = [",
        'a = """\n1\nb = 2"""\nc = 4',
        'a = """1 ""\\"""" # two more quotes\nb = """2 \\\n  """""\n\nc = 5',
        "a = '''1\n'' c = 2'''''\nb = 3",
        'a = "1 # \\" ] } b = 2"\nb = \'2 "\\\'\nc = 3',
        'a = [1, # ]\n  "]", [\n2, {x = 3}], [], {y = 3}\n ,\n]\nb = 6',
        'a = {b = 1, "c=" = [1, "}"], d.e = 1, f = {}}\ng = 2',
        "a = [ {b = 1},\n {b = 2, c = [2,\n {d = 3}]},\n]\nf = 5",
        "[t]\na = 2\n[[t.u]]\na = 4\n[[t.u]]\nb.c = 6\n[t.u.v]\na = 8\n[[t.u.w]]\n[[t.u.w]]\na = 11\n[z]\na = 13",
        '1.5 = 1\n-_ = 2\n"" = 3',
        "'' .'' = 1",
        '"\\u0061\\n" = 1\n"a" = 2\n\'\\u0061\' = 3',
        "[ 'a' . \"b\" ] # c\nc = 2\n [[ d ]]\ne = 4",
        "\ta = 1\n\n \t b = 3",
    ],
)
def test_every_key_has_its_line(text):
    check(text)


def test_tables_stand_where_their_header_is_else_where_they_are_first_mentioned():
    text = "[a.b]\n[a]\n[[c.d]]\n[[c.d]]\ne.f = 1979-05-27 07:32:00\ne.g = 2\ni = [[\n{j = 1}]]"
    expected = {
        ("a",): 2, ("a", "b"): 1, ("c",): 3, ("c", "d"): 3, ("c", "d", 0): 3, ("c", "d", 1): 4, ("c", "d", 1, "e"): 5,
        ("c", "d", 1, "e", "f"): 5, ("c", "d", 1, "e", "g"): 6, ("c", "d", 1, "i"): 7, ("c", "d", 1, "i", 0, 0): 8,
        ("c", "d", 1, "i", 0, 0, "j"): 8,
    }  # fmt: skip
    assert key_lines(text) == expected
    assert set(expected) == set(paths(tomllib.loads(text)))


NAMES = st.sampled_from(["a", "b", "c-d", '"e.f"', "'g = ['", '"h\\"#"', '"\\u00e9"', "1", '""'])
NOISE = st.sampled_from(["", "# x = 1", "  # [y]", '# """', "\t", "# '''"])


class Writer:
    """A document that is being written, whose values tell the line on which their key stands."""

    def __init__(self, draw):
        self.draw, self.text = draw, ""

    @property
    def line(self):
        return self.text.count("\n") + 1

    def key(self, known):
        """Write a key that is not known yet, dotted or not."""
        head = self.draw(NAMES.filter(lambda name: name not in known))
        known.add(head)
        parts = [head, *self.draw(st.lists(NAMES, max_size=2))]
        self.text += self.draw(st.sampled_from([".", " . "])).join(parts) + self.draw(st.sampled_from(["=", " = "]))

    def value(self, line, depth):
        kinds = ["number", "basic", "literal", "long basic", "long literal", "array"] + ["table"] * (depth > 0)
        match self.draw(st.sampled_from(kinds)):
            case "number":
                self.text += str(line)
            case "basic":
                self.text += f'"{line} \\" # ] }}"'
            case "literal":
                self.text += f"'{line} \\ # [ '"
            case "long basic":
                self.text += f'"""{line} ""\n[x]\ny = 1 \\"""\n""{self.draw(st.sampled_from(["", " "]))}"""'
            case "long literal":
                self.text += f"'''\n{line} ' ''\nz = 1{self.draw(st.sampled_from(['', chr(39), chr(39) * 2]))}'''"
            case "array":
                self.array(line, depth)
            case "table":
                self.table(depth - 1)

    def array(self, line, depth):
        space = st.sampled_from(["", " ", "\n", " # ], {\n"])
        self.text += f"[{self.draw(space)}{line}{self.draw(space)}"
        for _ in range(self.draw(st.integers(0, 2)) if depth else 0):
            self.text += f",{self.draw(space)}"
            self.table(depth - 1)
            self.text += self.draw(space)
        self.text += self.draw(st.sampled_from(["]", ",\n]"]))

    def table(self, depth):
        self.text += "{ "
        known = set()
        for index in range(self.draw(st.integers(0, 2))):
            self.text += ", " if index else ""
            line = self.line
            self.key(known)
            self.value(line, depth)
        self.text += "}"

    def pairs(self):
        known = set()
        for _ in range(self.draw(st.integers(0, 3))):
            self.text += self.draw(NOISE) + "\n"
            line = self.line
            self.key(known)
            self.value(line, 2)
            self.text += self.draw(NOISE) + "\n"


@st.composite
def documents(draw):
    writer = Writer(draw)
    writer.pairs()
    names = draw(st.lists(st.tuples(st.sampled_from(["t", '"u.v"', "w"]), st.sampled_from("12[]")), max_size=5))
    for number, (name, kind) in enumerate(names):
        # Tables never meet: headers of arrays share a name, those of tables are numbered.
        header = f"[[ X.{name} ]]" if kind in "[]" else f"[Y.{name}.n{number}]"
        writer.text += header + draw(NOISE) + "\n"
        writer.pairs()
        if kind == "]":
            writer.text += f"[X.{name}.sub]\n"
            writer.pairs()
    return writer.text


@given(documents())
def test_generated_documents_have_their_lines(text):
    check(text)


@given(st.text("ab.=[]{},'\"#\\\n \r1", max_size=60))
def test_no_text_crashes_and_those_that_are_toml_have_all_keys(text):
    lines = key_lines(text)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(lines) == set(paths(content))
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


def test_depth_is_bounded_and_nothing_recurses():
    deep = ".".join(["a"] * 20_000)
    assert max(map(len, key_lines(f"[{deep}]\n{deep} = {{{deep} = 1}}"))) == MAX_DEPTH
    assert key_lines("a = " + "[" * 20_000 + "]" * 20_000 + "\nb = 1") == {("a",): 1, ("b",): 2}
    assert longest_key(f"a.b.c = 1.5 # {deep}\n'{deep}' = '''{deep}'''") == 3
    assert longest_key(deep) == 20_000


@pytest.mark.parametrize("text", ["a = {} b = 1", "a = {b = {} c", "a = ]", "[", "[[", "[a", "a.", "= 1", "a = {b"])
def test_what_is_no_toml_does_no_harm(text):
    assert set(key_lines(text).values()) <= {1}


@pytest.mark.parametrize(
    "piece", ['"', "'", '"""', "'''", '"\\', '"\n', '\\"""', '""\\"', "[{", "a.", "#", "\\", '""" ']
)
def test_no_text_takes_long(piece):
    text = (piece * 65_536)[:65_536]
    start = time.process_time()
    key_lines(text)
    longest_key(text)
    assert time.process_time() - start < 3
