"""Which files of a folder of texts are read."""

import pytest

from lossprobe.errors import UsageError
from lossprobe.text.documents import open_text
from lossprobe.text.options import TextOptions

FILES = ("a.md", "b.txt", "drafts/c.md", "drafts/old/d.md", "img/e.png")


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "texts"


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (("*.md",), (), ("a.md", "drafts/c.md", "drafts/old/d.md")),
        (("*.md", "*.txt"), ("drafts/*",), ("a.md", "b.txt")),
        ((), ("drafts",), ("a.md", "b.txt", "img/e.png")),
        ((), ("drafts/old/",), ("a.md", "b.txt", "drafts/c.md", "img/e.png")),
        (("drafts/*.md",), (), ("drafts/c.md", "drafts/old/d.md")),
        (("[ab].*",), ("b*",), ("a.md",)),
        (("*.MD",), ("a.md",), ()),  # as names of files are: A is not a
    ],
)
def test_patterns_choose_by_name_path_and_folder(folder, include, exclude, expected):
    options = TextOptions(include=include, exclude=exclude)
    if not expected:
        with pytest.raises(UsageError) as caught:
            open_text(folder, options)
        assert caught.value.id == "text.empty_folder"
        assert "leave none of 5 files (the first: a.md)" in caught.value.message
        return
    source = open_text(folder, options)
    assert tuple(d.text for d in source.documents()) == expected
    assert source.notices == [f"{folder}: {5 - len(expected)} of 5 files left out by `include` and `exclude`"]


def test_without_a_folder_patterns_choose_nothing_and_that_is_told(folder):
    source = open_text(folder / "a.md", TextOptions(exclude=("*.md",)))
    assert [d.text for d in source.documents()] == ["a.md"]
    assert source.notices == ["`include` and `exclude` choose files of a folder, and no text is one"]
