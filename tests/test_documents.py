"""The commands of the README and of docs/ are the program's, and what they print is what the pages show."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import click
import pytest
from bundled import EXAMPLES
from documented import DOCUMENTS, IN_A_SENTENCE, PAGES, ROOT, blocks, chunks, lossprobe_lines, name_of, sentences
from documented_inputs import (
    write_adapters,
    write_gguf,
    write_logs,
    write_quantised,
    write_report,
    write_series,
    write_sharded,
)
from matplotlib.image import imread

from lossprobe.cli.main import CONTEXT, cli, run
from lossprobe.cli.result_files import SUFFIXES

BUNDLED = ("jargon-plain", "jargon-smoothed", "jargon-valid.jsonl")
# They need a model that is trained first, a trainer's log, or a cluster; python.md and object-storage.md have tests of
# their own.
UNTRIED = {
    "object-storage.md",
    "ray.md",
    "python.md",
    "chat-data.md",
    "preferences.md",
    "trainer-logs-another-number.md",
}
# Pages that are read in a folder of their own, and what writes there what they name.
OF_THEIR_OWN = {
    "adapters.md": write_adapters,
    "gguf.md": write_gguf,
    "large-models.md": write_quantised,
    "many-machines.md": write_sharded,
    "quantised.md": write_quantised,
    "report.md": write_report,
}
WITH_COMMANDS = [page for page in DOCUMENTS if any(block.language == "sh" for block in blocks(page))]
TRIED = [page for page in WITH_COMMANDS if page.name not in UNTRIED | OF_THEIR_OWN.keys()]
OTHER_MODEL = {PAGES / "howto" / "bad-data.md", PAGES / "explanation" / "windows.md"}  # a model that is not bundled
OF_LOGS = PAGES / "howto" / "training-run.md"
OF_SERIES = PAGES / "howto" / "over-training.md"
NOT_THERE = "final_model.pt"  # a checkpoint of FundamentaLLM, which nobody has here
EXIT_CODES = {
    "lossprobe audit": (0, 10),
    "lossprobe audit --stop-early": (10,),
    "lossprobe baseline update": (0, 10),
    "lossprobe curve trainer_state.json --fail-on not-finite,over-fitting": (10,),
    "lossprobe defects my-model data.txt --fail-on secret,mojibake": (10,),
}
PLACEHOLDER = re.compile(r"[A-Z_]+|trainer_state\.json")
# Options of pip, mlx_lm, DeepSpeed, llama.cpp, torchrun and Ray.
FOREIGN_OPTIONS = {
    "--index-url", "--dequantize", "--safe_serialization", "--check-tensors", "--node-rank", "--node-ip-address",
    "--rdzv-backend",
}  # fmt: skip
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that a line means, and the words after it."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    return command, words


def all_options() -> set[str]:
    def below(command: click.Command) -> set[str]:
        own = {word for param in command.params for word in (*param.opts, *param.secondary_opts)}
        return own.union(*map(below, command.commands.values())) if isinstance(command, click.Group) else own

    return below(cli) | {"--help"}


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_every_command_on_a_page_exists_with_its_options_and_choices(page):
    for words in lossprobe_lines(page):
        command, rest = command_of(words)
        assert command is not cli or words[0] == "COMMAND", words
        context = click.Context(command, **CONTEXT)
        try:
            words = [f"{word}=FILE" if word in SUFFIXES else word for word in rest if word != "--help"]
            given, *_ = command.make_parser(context).parse_args(words)
        except click.UsageError as error:
            pytest.fail(f"{words}: {error.format_message()}")
        for param in command.params:
            values = given.get(param.name) if isinstance(param, click.Option) else None
            for value in values if isinstance(values, list) else [values]:
                if isinstance(value, str) and not PLACEHOLDER.fullmatch(value):
                    param.type.convert(value, param, context)


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_every_option_that_a_sentence_names_exists(page):
    known = all_options() | FOREIGN_OPTIONS
    for code in IN_A_SENTENCE.findall(sentences(page)):
        if code.startswith("--"):
            assert code.split()[0].split("=")[0] in known, code


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_every_block_says_what_it_is(page):
    for block in blocks(page):
        assert block.language in ("sh", "text", "python", "toml"), block.text
        if block.language == "toml":
            tomllib.loads(block.text)
        if block.language == "python":
            compile(block.text, name_of(page), "exec")


def test_what_is_made_is_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for page in DOCUMENTS:
        named = [line for block in blocks(page) if block.language == "sh" for line in block.commands]
        for line in [*named, *IN_A_SENTENCE.findall(sentences(page))]:
            if line.startswith("make "):
                assert re.search(f"^{line.split()[1]}:", makefile, re.M), line


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A folder with copies of the bundled files, both models scored, and nothing else: where a reader types."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "examples").mkdir()
    for name in BUNDLED:
        copy = shutil.copytree if (EXAMPLES / name).is_dir() else shutil.copy
        copy(EXAMPLES / name, folder / "examples" / name)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for model in BUNDLED[1::-1]:  # the plain one last: it is the latest run
            assert run(["score", f"examples/{model}", f"examples/{BUNDLED[2]}", "--quiet"]) == 0
    return folder


@pytest.fixture
def reader(scored, monkeypatch):
    """Enter that folder; what a page makes there is removed afterwards, but for runs."""
    monkeypatch.chdir(scored)
    monkeypatch.setenv("COLUMNS", "100")
    before = set(scored.iterdir())
    yield scored
    for made in set(scored.iterdir()) - before:
        shutil.rmtree(made) if made.is_dir() else made.unlink()


@pytest.mark.thorough
@pytest.mark.parametrize("page", TRIED, ids=name_of)
def test_the_commands_of_a_page_run_one_after_the_other_and_print_what_it_shows(page, reader, capfd):
    if page == OF_LOGS:
        write_logs()
    if page == OF_SERIES:
        write_series()
    if page in OTHER_MODEL:
        shutil.copytree("examples/jargon-plain", "my-model")
        damaged = Path("examples/jargon-valid.jsonl").read_text("utf-8") + "The key is AKIAABCDEFGHIJKLMNOP.\n"
        Path("data.txt").write_text(damaged, "utf-8")
    for block in blocks(page):
        if block.language == "python" and page.name == "README.md":
            exec(compile(block.text, page.name, "exec"), {"__name__": "page"})
        for line in block.commands if block.language == "sh" else ():
            printed = typed(line, capfd)
        if block.language == "sh" and block.shown is not None:
            (same_layout if page in OTHER_MODEL else same_lines)(block.shown, printed)


@pytest.mark.thorough
@pytest.mark.parametrize("page", [page for page in WITH_COMMANDS if page.name in OF_THEIR_OWN], ids=name_of)
def test_the_commands_of_a_page_run_in_a_folder_with_what_it_names(page, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    OF_THEIR_OWN[page.name]()
    for block in blocks(page):
        if block.language == "toml":  # a later block of a page goes on with the same audit file
            with Path("lossprobe.toml").open("a") as file:
                file.write(block.text)
        printed = [typed(line, capfd) for line in block.commands if block.language == "sh"]
        if block.language == "sh" and block.shown is not None:
            (same_lines if page.name == "adapters.md" else same_layout)(block.shown, printed[-1])


def typed(line: str, capfd) -> str:
    """Type a line, but for what installs; return what it prints."""
    words = line.split("  #")[0].split()
    if words[0] != "lossprobe":
        if words[0] in ("cp", "echo", "git"):
            subprocess.run(["bash", "-e", "-c", line], check=True)
        return ""
    if NOT_THERE in words:
        return ""
    options = {word for param in command_of(words[1:])[0].params for word in param.opts}
    capfd.readouterr()
    code = run([*words[1:], *(["--table"] if "--table" in options else [])])
    out, err = capfd.readouterr()
    assert code in EXIT_CODES.get(" ".join(words), (0,)), (line, err)
    return out


def same_lines(shown: str, printed: str) -> None:
    """The lines of a sample follow one another in what was printed; numbers may be off by the rounding of a machine."""
    lines, start = [words_of(line) for line in printed.splitlines()], 0
    for part in chunks(shown):
        wanted = [words_of(line) for line in part]
        places = range(start, len(lines) - len(wanted) + 1)
        found = next((place for place in places if all(map(alike, lines[place:], wanted))), None)
        assert found is not None, f"{part}\nis not in\n{printed}"
        start = found + len(wanted)


def same_layout(shown: str, printed: str) -> None:
    """A sample of another model has what was printed: the kind of title, a finding or verdict, columns of the table."""

    def layout(text: str) -> list[list[str]]:
        title, *parts = [part.splitlines() for part in text.split("\n\n")]
        table = next(part for part in parts if any(line.startswith("──") for line in part))
        rule = next(number for number, line in enumerate(table) if line.startswith("──"))
        assert len(parts) > 1, "a table alone"
        return [title[0].split()[:1], " ".join(table[:rule]).split()]

    assert layout(shown) == layout(printed)


def words_of(line: str) -> tuple[str, list[float]]:
    """Return a line with its blanks and rules as one and numbers as #, and these numbers."""
    numbers = [float(number.replace(",", "")) for number in NUMBER.findall(line)]
    return re.sub("─+", "─", " ".join(NUMBER.sub("#", line).split())), numbers


def alike(one: tuple[str, list[float]], other: tuple[str, list[float]]) -> bool:
    return one[0] == other[0] and one[1] == pytest.approx(other[1], rel=2e-3, abs=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("picture", "words"),
    [
        ("curve", ["curve", "trainer_state.json"]),
        ("tokens", ["tokens"]),
        ("calibration", ["calibration", *(f"examples/{name}" for name in BUNDLED)]),
    ],
)
def test_the_pictures_of_the_pages_are_what_the_program_draws(picture, words, reader):
    if picture == "curve":
        write_logs()
    if picture == "tokens":
        words = ["tokens", "examples/jargon-plain", "examples/jargon-valid.jsonl"]
    assert run([*words, "--plot", "drawn.png", "--csv", "drawn.csv", "--quiet"]) == 0
    shown, drawn = (imread(path)[:, :, :3] for path in (PAGES / "images" / f"{picture}.png", Path("drawn.png")))
    assert shown.shape == drawn.shape
    assert abs(shown - drawn).mean() < 0.002
