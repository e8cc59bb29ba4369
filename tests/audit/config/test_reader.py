"""The audit file: what it may say, and how each mistake is told with file, line and key."""

import dataclasses
import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossprobe.audit.checks.metrics import METRICS
from lossprobe.audit.config.document import INIT_HINT, MAX_FILE_BYTES
from lossprobe.audit.config.origins import settings_table
from lossprobe.audit.config.reader import Override, find_config, read_settings
from lossprobe.audit.config.schema import ALL_KEYS, LIMIT_KEYS
from lossprobe.audit.settings import (
    LIMITS,
    BaselineSettings,
    Check,
    DataSettings,
    Limit,
    ModelSettings,
    StatsSettings,
)
from lossprobe.errors import LossprobeError, UsageError
from lossprobe.plan.options import ScoreOptions

SHORTEST = """\
schema = 1
[model]
checkpoint = "out/ckpt"
[data.heldout]
path = "data/heldout.jsonl"
[baseline]
path = "baselines/main"
[[check]]
id = "no-regression"
metric = "nll"
max_increase = 0.01
"""
LONGEST = """\
schema = 1
[model]
checkpoint = "../ckpt"
tokenizer = "/abs/meta.pkl"
device = "cuda:1"
dtype = "bfloat16"
gelu = "tanh"
[eval]
context = 256
stride = 256
bos = "never"
batch_size = 8
score_unknown = true
max_unknown = 1
[data.heldout]
path = "data/heldout.jsonl"
sha256 = "ABCDEFabcdef0123456789ABCDEFabcdef0123456789ABCDEFabcdef01234567"
text_field = "body"
split_documents = "\\\\n---\\\\n"
newlines = "lf"
[data."code.v1"]
path = "code"
[baseline]
path = "baselines/main"
missing = "create"
[stats]
confidence = 0.99
seed = 7
stop_early = true
[[check]]
id = "late.digits_1"
data = "code.v1"
metric = "share_above"
max_decrease = 0.03
where = "context >= 128 and document<5"
class = "digits"
field = "source"
equals = ""
nats = 10
level = "warn"
rule = "point"
inconclusive = "fail"
[[check]]
id = "p99"
data = "heldout"
metric = "quantile"
quantile = 0.99
max = 12.5
"""


def write(folder, text, name="lossprobe.toml"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def in_project(text):
    """Return an audit file as a section of a pyproject.toml, three lines further down."""
    return "[project]\nname = 'x'\n[tool.lossprobe]\n" + re.sub(r"(?m)^(\[+)", r"\1tool.lossprobe.", text)


def refuse(path, overrides=()):
    """Return id, message without the folder, and hint of the refusal."""
    with pytest.raises(UsageError) as caught:
        read_settings(path, overrides)
    error = caught.value
    assert error.exit_code == 2
    assert error.message.isprintable()
    assert (error.hint or "").isprintable()
    assert error.id.startswith("audit.")
    prefix = f"{path.parent}/"
    assert error.message.startswith(prefix)
    return error.id.removeprefix("audit."), error.message.removeprefix(prefix), error.hint


def test_the_shortest_file_takes_the_defaults(tmp_path):
    path = write(tmp_path, SHORTEST)
    audit = read_settings(path)
    assert audit.file == path
    assert audit.model == ModelSettings(checkpoint=tmp_path / "out/ckpt")
    assert audit.windows == ScoreOptions()
    assert audit.data == (DataSettings(name="heldout", path=tmp_path / "data/heldout.jsonl"),)
    assert audit.baseline == BaselineSettings(tmp_path / "baselines/main")
    assert audit.stats == StatsSettings()
    assert audit.checks == (Check("no-regression", "heldout", "nll", Limit("max_increase", 0.01), line=8),)


def test_the_longest_file_says_everything(tmp_path):
    audit = read_settings(write(tmp_path, LONGEST))
    assert audit.model == ModelSettings(
        checkpoint=tmp_path / "../ckpt", tokenizer=Path("/abs/meta.pkl"), device="cuda:1", dtype="bfloat16", gelu="tanh"
    )
    assert audit.windows == ScoreOptions(256, 256, "never", 8, True, 1.0)
    sha256 = "abcdefabcdef0123456789abcdefabcdef0123456789abcdefabcdef01234567"
    assert audit.data[0] == DataSettings(
        name="heldout", path=tmp_path / "data/heldout.jsonl", sha256=sha256,
        text_field="body", split_documents="\\n---\\n", newlines="lf",
    )  # fmt: skip
    assert audit.data[1] == DataSettings(name="code.v1", path=tmp_path / "code")
    assert audit.baseline == BaselineSettings(tmp_path / "baselines/main", "create")
    assert audit.stats == StatsSettings(0.99, 7, True)
    first, second = audit.checks
    assert first == Check(
        "late.digits_1", "code.v1", "share_above", Limit("max_decrease", 0.03), "context >= 128 and document<5",
        "digits", "source", "", 10.0, None, "warn", "point", "fail", 30,
    )  # fmt: skip
    assert second == Check("p99", "heldout", "quantile", Limit("max", 12.5), quantile=0.99, line=43)
    assert all(isinstance(number, float) for number in (audit.windows.max_unknown, first.limit.value, first.nats))
    assert set(audit.origins.values()) - {"default"} == {f"lossprobe.toml line {line}" for line in LONGEST_LINES}


LONGEST_LINES = [
    number for number, line in enumerate(LONGEST.splitlines(), start=1)
    if " = " in line and not line.startswith(("schema", "id"))
]  # fmt: skip


def test_the_section_of_a_pyproject_says_the_same(tmp_path):
    section = in_project(LONGEST)
    path = write(tmp_path, section, "pyproject.toml")
    audit = read_settings(path)
    other = read_settings(write(tmp_path, LONGEST))
    assert dataclasses.replace(audit, file=other.file, checks=(), origins={}) == dataclasses.replace(
        other, checks=(), origins={}
    )
    assert [dataclasses.replace(check, line=check.line - 3) for check in audit.checks] == list(other.checks)
    assert audit.origins["model.dtype"] == "pyproject.toml line 9"
    _, message, _ = refuse(write(tmp_path, section.replace("metric", "metrik", 1), "pyproject.toml"))
    assert message == 'pyproject.toml: line 36: unknown key "metrik" in [[tool.lossprobe.check]]'


def test_the_schema_has_the_names_of_the_settings():
    for name, kind in {"baseline": BaselineSettings, "stats": StatsSettings}.items():
        assert list(ALL_KEYS[name]) == [field.name for field in dataclasses.fields(kind)]
    elsewhere = {"name", "keep_text", "policy", "max_bytes"}  # the name is in the header; the others are no keys
    for name, kind in {"model": ModelSettings, "eval": ScoreOptions, "data": DataSettings}.items():
        assert set(ALL_KEYS[name]) == {field.name for field in dataclasses.fields(kind)} - elsewhere
    named = [{"class": "token_class"}.get(key, key) for key in ALL_KEYS["check"] if key not in LIMIT_KEYS]
    assert sorted([*named, "limit", "line"]) == sorted(field.name for field in dataclasses.fields(Check))
    assert tuple(LIMIT_KEYS) == LIMITS


def test_the_words_are_those_of_score():
    from lossprobe.cli.score import score

    options = {option.name: option for option in score.params}
    for table, key in (("model", "dtype"), ("model", "gelu"), ("eval", "bos"), ("data", "newlines")):
        assert tuple(options[key].type.choices) == ALL_KEYS[table][key].words
    for kind in (ModelSettings, ScoreOptions, DataSettings):
        for field in dataclasses.fields(kind):
            default = getattr(options.get(field.name), "default", None)
            if isinstance(default, str | float) and field.name != "batch_size":
                assert field.default == default, field.name


def changed(old, new):
    text = SHORTEST.replace(old, new, 1)
    assert text != SHORTEST
    return text


REFUSED = [
    # line, key and what is wrong; the hint where there is one
    ("schema = 1\n", "", "schema", "no schema", "write schema = 1 at its start"),
    ("schema = 1", "schema = 2", "schema", "line 1: schema = 2: this lossprobe reads schema 1", None),
    ("schema = 1", "schema = true", "schema", "line 1: schema = true: this", None),
    ("schema = 1", "schema = 1.0", "schema", "line 1: schema = 1.0: this", None),
    ("schema = 1", 'schema = "1"', "schema", 'line 1: schema = "1": this', None),
    ("[model]", "[modle]", "unknown_key", 'line 2: unknown table "modle"', "did you mean model?"),
    ("schema = 1", "schema = 1\ncontext = 3", "unknown_key", 'line 2: unknown key "context"', "context belongs"),
    ("schema = 1", 'schema = 1\n"\\u001b[2J" = 3', "unknown_key", 'line 2: unknown key "\\x1b[2J"', None),
    ("[model]\n", "model = 3\n[x]\n", "type", "line 2: model must be a table with the header [model], not", None),
    ("[data.heldout]\npath", "[data]\npath", "type",
     "line 5: path in [data]: must be in a table with the header [data.NAME]", None),
    ("[[check]]", "[check]", "type", "line 8: check must be tables with the header [[check]]", None),
    ("[[check]]", "[check.x]", "type", "line 8: check must be tables", None),
    ("schema = 1", "schema = 1\neval = [1]", "type", "eval must be a table with the header [eval], not an array", None),
    ("max_increase", "treshold", "unknown_key", 'line 11: unknown key "treshold" in [[check]]', None),
    ("max_increase", "max_increse", "unknown_key", 'line 11: unknown key "max_increse" in [[check]]',
     "did you mean max_increase?"),
    ("[data.", "stride = 2\n[data.", "unknown_key", 'line 4: unknown key "stride" in [model]', "stride belongs in"),
    ("path", "field", "unknown_key", 'line 5: unknown key "field" in [data.heldout]', "did you mean text_field?"),
    ('checkpoint = "out/ckpt"', "", "missing_key", "line 2: checkpoint is missing in [model]", None),
    ('[model]\ncheckpoint = "out/ckpt"\n', "", "missing_key", "checkpoint is missing in [model]", None),
    ('path = "data/heldout.jsonl"', "", "missing_key", "line 4: path is missing in [data.heldout]", None),
    ('id = "no-regression"', "", "missing_key", "line 8: id is missing in [[check]]", None),
    ('metric = "nll"', "", "missing_key", "line 8: metric is missing in [[check]]", None),
    ('[data.heldout]\npath = "data/heldout.jsonl"\n', "", "no_data", "no text: needs a table [data.NAME]", None),
    ('[data.heldout]\npath = "data/heldout.jsonl"\n', "[data]\n", "no_data", "line 4: no text", None),
    ("[[check]]\n", "[", "syntax", "line 8: no valid TOML: ", None),
    ('[[check]]\nid = "no-regression"\nmetric = "nll"\nmax_increase = 0.01\n', "", "no_check",
     "no check: needs a table [[check]]", None),
    ("heldout]", '"hel dout"]', "value", 'line 4: the name "hel dout" of a text must be letters, digits', None),
    ("heldout]", '".."]', "value", 'line 4: the name ".." of a text must be letters', None),
    ('"out/ckpt"', "3", "value", "line 3: checkpoint = 3 in [model]: must be a path in quotes, not a whole", None),
    ('"out/ckpt"', '""', "value", 'line 3: checkpoint = "" in [model]: must be a path', None),
    ('"out/ckpt"', '"a\\u0000"', "value", "must be a path", None),
    ('"data/heldout.jsonl"', '"-"', "value", "line 5: path = \"-\" in [data.heldout]: must be a file or folder", None),
    ('"data/heldout.jsonl"', '"./-"', "value", "must be a file or folder", None),
    ('"no-regression"', '"a b"', "value", 'line 9: id = "a b" in [[check]]: must be letters, digits', None),
    ('"no-regression"', '"é"', "value", "must be letters", None),
    ('"no-regression"', '"a\\n"', "value", "must be letters", None),
    ('"no-regression"', '""', "value", "must not be empty", None),
    ('"nll"', '"nl"', "value", 'line 10: metric = "nl" in [[check]]: must be one of nll,', "did you mean nll?"),
    ('"nll"', "1", "value", "line 10: metric = 1 in [[check]]: must be text in quotes, not a whole number", None),
    ('"nll"', '"perplexity"\nclass = "digit"', "value", 'line 11: class = "digit" in [[check]]: must be one of end',
     "did you mean digits?"),
    ("0.01", '"0.01"', "value", 'line 11: max_increase = "0.01" in [[check]]: must be a number, not text', None),
    ("0.01", "true", "value", "line 11: max_increase = true in [[check]]: must be a number, not true or false", None),
    ("0.01", "nan", "value", "line 11: max_increase = nan in [[check]]: must be a finite number, at least 0", None),
    ("0.01", "inf", "value", "max_increase = inf in", None),
    ("0.01", "1e999", "value", "max_increase = inf in", None),
    ("0.01", "-0.01", "value", "max_increase = -0.01 in [[check]]: must be a finite number, at least 0", None),
    ("0.01", "1979-05-27", "value", "max_increase = a date in", None),
    ("0.01", f"0x{'f' * 50_000}", "value", "max_increase = a whole number in", None),
    ("0.01", "9" * 5000, "syntax", "no valid TOML: Exceeds the limit", None),
    ("max_increase = 0.01", "max = -1", "value", "line 11: max = -1.0 in [[check]]: nll lies at 0 or above", None),
    ("max_increase = 0.01", "max_decrease_pct = 101", "value", "must be between 0 and 100", None),
    ("max_increase = 0.01", "", "no_limit", "line 8: [[check]]: needs a limit: one of max, min,", None),
    ("max_increase = 0.01", "max = 1\nmin = 2", "two_limits", "line 8: [[check]]: has more than one limit: max, min",
     "write a check for each"),
    ('"nll"\nmax_increase = 0.01', '"accuracy"\nmin = 95', "value",
     "line 11: min = 95.0 in [[check]]: accuracy lies between 0 and 1", None),
    ('"nll"\nmax_increase = 0.01', '"perplexity"\nmax = 0.5', "value", "perplexity lies at 1 or above", None),
    ('"nll"\nmax_increase = 0.01', '"accuracy"\nmax_decrease = 2', "value",
     "line 11: max_decrease = 2.0 in [[check]]: accuracy lies between 0 and 1, and cannot change by more", None),
    ('"nll"\nmax_increase', '"confidence_gap"\nmax_increase_pct', "value",
     "confidence_gap can be negative or 0, and has no change in percent", "use max_increase"),
    ('"nll"', '"nll"\nnats = 2', "parameter", "line 11: nats = 2.0 in [[check]]: only with metric share_above, not nll",
     None),
    ('"nll"', '"nll"\nquantile = 0.5', "parameter", "only with metric quantile, not nll", None),
    ('"nll"', '"share_above"', "parameter", "line 8: [[check]]: metric share_above needs nats", None),
    ('"nll"', '"quantile"', "parameter", "line 8: [[check]]: metric quantile needs quantile", None),
    ('"nll"', '"quantile"\nquantile = 1', "value", "quantile = 1 in [[check]]: must be between 0 and 1, neither", None),
    ('"nll"', '"quantile"\nquantile = 0.0', "value", "must be between 0 and 1, neither included", None),
    ('"nll"', '"share_above"\nnats = -1', "value", "must be a finite number, at least 0", None),
    ('"nll"', '"nll"\nfield = "a"', "slice", 'line 11: field = "a" in [[check]]: needs equals as well', None),
    ('"nll"', '"nll"\nequals = "a"', "slice", 'line 11: equals = "a" in [[check]]: needs field as well', None),
    ('"nll"', '"nll"\nfield = "a"\nequals = 3', "value", "line 12: equals = 3 in [[check]]: must be text", None),
    ('"nll"', '"nll"\nwhere = "loss > 5"', "where",
     'line 11: where = "loss > 5" in [[check]]: loss_nats is known only after scoring', "columns: document, token,"),
    ('"nll"', '"nll"\nwhere = "context > 5 and rank = 0"', "where", "rank is known only after scoring", "columns:"),
    ('"nll"', '"nll"\nwhere = "context > "', "where", 'where = "context > " in [[check]]: expected COLUMN', "columns:"),
    ('"nll"', '"nll"\nwhere = "1=1; DROP"', "where", "expected COLUMN", "columns:"),
    ('"nll"', '"nll"\ndata = "held"', "unknown_data", 'line 11: data = "held" in [[check]]: no such text; there is',
     "did you mean heldout?"),
    ("[baseline]", "[data.other]\npath = 'x'\n[baseline]", "missing_key",
     "line 10: [[check]]: data is missing, with more than one text: heldout, other", None),
    ("max_increase = 0.01\n", 'max = 1\n[[check]]\nid = "no-regression"\nmetric = "nll"\nmax = 1', "duplicate_id",
     'line 13: id = "no-regression" in [[check]]: taken by the check of line 8', None),
    ('[baseline]\npath = "baselines/main"\n', "", "no_baseline",
     "line 9: max_increase = 0.01 in [[check]]: needs a baseline, and there is no path in [baseline]", None),
    ('path = "baselines/main"\n', 'missing = "create"\n', "no_baseline", "needs a baseline", None),
    ('"baselines/main"', '"x"\nmissing = "warm"', "value", "line 8: missing = \"warm\" in [baseline]: must be one of",
     "did you mean warn?"),
    ("[data.", 'device = "gpu"\n[data.', "value", 'device = "gpu" in [model]: must be auto, cpu, cuda', None),
    ("[data.", "[eval]\ncontext = 0\n[data.", "value", "line 5: context = 0 in [eval]: must be between 1", None),
    ("[data.", "[eval]\ncontext = -5\n[data.", "value", "context = -5", None),
    ("[data.", "[eval]\ncontext = 2.0\n[data.", "value", "must be a whole number, not a number", None),
    ("[data.", "[eval]\nbatch_size = 'all'\n[data.", "value", 'must be a whole number or "auto", not text', None),
    ("[data.", "[eval]\ncontext = 4\nstride = 5\n[data.", "value",
     "line 6: stride = 5 in [eval]: more than the context, 4", None),
    ("[data.", "[eval]\nscore_unknown = 1\n[data.", "value", "must be true or false, not a whole number", None),
    ("[data.", "[eval]\nmax_unknown = 1.5\n[data.", "value", "must be between 0 and 1", None),
    ("[data.", "[eval]\nmax_unknown = -0.1\n[data.", "value", "must be between 0 and 1", None),
    ("[data.", "[stats]\nconfidence = 1\n[data.", "value", "= 1 in [stats]: must be between 0 and 1, neither", None),
    ("[data.", "[stats]\nconfidence = 95\n[data.", "value", "must be between 0 and 1, neither included", None),
    ("[data.", "[stats]\nseed = -1\n[data.", "value", "seed = -1", None),
    ("[data.", "[stats]\nseed = 0xffffffffffffffff\n[data.", "value", "seed = a whole number in [stats]: must", None),
    ("[baseline]", "sha256 = 'abc'\n[baseline]", "value", "must be 64 hexadecimal digits", None),
    ("[baseline]", f"sha256 = '{'g' * 64}'\n[baseline]", "value", "must be 64 hexadecimal digits", None),
    ("[baseline]", "split_documents = '('\n[baseline]", "value",
     "line 6: split_documents in [data.heldout]: (: missing )", None),
    ("[baseline]", "split_documents = 'a*'\n[baseline]", "value", "matches the empty string", None),
    ("[baseline]", "text_field = ''\n[baseline]", "value", "must not be empty", None),
    ("schema = 1", "schema = 1\nschema = 1", "syntax", "line 2: no valid TOML: Cannot overwrite a value", None),
    ("0.01\n", '"0.01', "syntax", "line 11: no valid TOML: ", None),
    ("0.01\n", "", "syntax", "no valid TOML: ", None),
    ("0.01", "[" * 20_000, "nested", "nested too deeply", None),
    ("max_increase", ".".join("a" * 40), "nested", "a key has more than 32 parts", None),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "id", "message", "hint"), REFUSED)
def test_mistakes_are_told_with_line_and_key(tmp_path, old, new, id, message, hint):
    for text in (changed(old, new), changed(old, new).replace("\n", "\r\n")):
        refused = refuse(write(tmp_path, text))
        assert refused[0] == id
        assert refused[1].startswith("lossprobe.toml: ")
        assert f" {message}" in refused[1]
        assert (refused[2] or "").startswith(hint or "")
        assert (refused[2] is None) == (hint is None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('[baseline]\npath = "baselines/main"\n', '[baseline]\nmissing = "warn"\n'),
        ('[baseline]\npath = "baselines/main"\n[[check]]', '[[check]]\nlevel = "off"'),
        ("max_increase = 0.01", "max = 3"),
        ("max_increase = 0.01", "max_increase = 0"),
        ('"nll"', '"nll"\nwhere = ""'),
        ('"nll"', '"nll"\nwhere = " token_id != 3 AND byte_stop <= 1e3 and window=2 "'),
        ("[data.", "[eval]\nstride = 5\n[data."),
        ("schema", "\ufeffschema"),
    ],
)
def test_what_can_be_meant_is_taken(tmp_path, old, new):
    assert read_settings(write(tmp_path, changed(old, new))).checks


@pytest.mark.parametrize("value", ["[1]", "[]", "[[]]", "[{id = 1}, 2]", "3"])
def test_checks_are_tables(tmp_path, value):
    text = f"schema = 1\ncheck = {value}\n" + SHORTEST.partition("[[check]]")[0].removeprefix("schema = 1\n")
    id, message, _ = refuse(write(tmp_path, text))
    assert (id, message.rpartition(": ")[0]) == (
        ("no_check", "lossprobe.toml: line 2: no check") if value == "[]" else ("type", "lossprobe.toml: line 2")
    )


def test_batches_of_auto_are_none(tmp_path):
    text = changed("[data.", '[eval]\nbatch_size = "auto"\n[data.')
    assert read_settings(write(tmp_path, text)).windows.batch_size is None


@pytest.mark.parametrize("metric", [name for name, metric in METRICS.items() if not metric.of_pair])
def test_every_metric_takes_a_limit_on_its_change(tmp_path, metric):
    parameter = {"share_above": "nats = 5\n", "quantile": "quantile = 0.9\n"}.get(metric, "")
    text = SHORTEST.replace('metric = "nll"\n', f'metric = "{metric}"\n{parameter}')
    percent = text.replace("max_increase", "max_increase_pct")
    if metric == "perplexity":
        assert "is a ratio" in refuse(write(tmp_path, text))[1]
        text = percent
    assert read_settings(write(tmp_path, text)).checks[0].metric == metric
    if metric not in ("nll", "perplexity", "bits_per_byte", "accuracy", "brier"):
        assert "has no change in percent" in refuse(write(tmp_path, percent))[1]


@pytest.mark.parametrize("metric", [name for name, metric in METRICS.items() if metric.of_pair])
def test_a_distance_needs_a_reference_and_has_no_change(tmp_path, metric):
    text = SHORTEST.replace('metric = "nll"', f'metric = "{metric}"')
    line = text[: text.index("max_increase")].count("\n") + 1
    assert refuse(write(tmp_path, text)) == (
        "value", f"lossprobe.toml: line {line}: max_increase = 0.01 in [[check]]: {metric} is a distance from the "
        "reference model, and has no change from a baseline", "use max or min",
    )  # fmt: skip
    text = text.replace("max_increase", "max")
    found = refuse(write(tmp_path, text))
    assert found[0] == "no_reference"
    assert found[1].endswith(f"{metric} needs a reference model, and there is no table [reference]")
    read_settings(write(tmp_path, text + 'level = "off"\n'))
    reference = '[reference]\ncheckpoint = "base"\ndtype = "bfloat16"\n[[check]]'
    settings = read_settings(write(tmp_path, text.replace("[[check]]", reference)))
    assert settings.reference == ModelSettings(checkpoint=tmp_path / "base", dtype="bfloat16")
    assert settings.origins["reference.dtype"].startswith("lossprobe.toml line ")
    wrong = text.replace("[[check]]", '[reference]\ndtype = "bfloat16"\n[[check]]')
    assert "checkpoint is missing in [reference]" in refuse(write(tmp_path, wrong))[1]


def test_base_and_merge_belong_to_the_adapter_of_the_file(tmp_path):
    text = SHORTEST.replace('checkpoint = "out/ckpt"', 'checkpoint = "lora"\nbase = "base"\nmerge = true')
    file, other = write(tmp_path, text), tmp_path / "other-lora"
    other.mkdir()
    (other / "adapter_config.json").write_text("{}")
    assert read_settings(file).model.base == tmp_path / "base"
    replaced = read_settings(file, [Override("model.checkpoint", str(other), "--checkpoint")]).model
    assert (replaced.checkpoint, replaced.base, replaced.merge) == (other, tmp_path / "base", True)
    replaced = read_settings(file, [Override("model.checkpoint", str(tmp_path / "base"), "--checkpoint")]).model
    assert (replaced.checkpoint, replaced.base, replaced.merge) == (tmp_path / "base", None, False)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    init = INIT_HINT
    assert refuse(tmp_path / "lossprobe.toml") == ("no_file", "lossprobe.toml: does not exist", init)
    (tmp_path / "folder.toml").mkdir()
    assert refuse(tmp_path / "folder.toml")[:2] == ("unreadable", "folder.toml: cannot be read: Is a directory")
    assert refuse(tmp_path / "a\0b")[0] == "unreadable"
    path = write(tmp_path, SHORTEST + "#" * (MAX_FILE_BYTES - len(SHORTEST)))
    assert read_settings(path).checks
    write(tmp_path, SHORTEST + "#" * (MAX_FILE_BYTES - len(SHORTEST) + 1))
    assert refuse(path)[:2] == ("too_large", "lossprobe.toml: larger than 65,536 bytes, the limit")
    for mark in (b"", b"\xef\xbb\xbf"):
        write(tmp_path, mark + SHORTEST.encode() + b"# \xe9\n")
        assert refuse(path)[:2] == ("not_utf8", "lossprobe.toml: line 12: byte 0xe9 is not UTF-8")
    write(tmp_path, SHORTEST.encode("utf-16"))
    assert refuse(path)[1] == "lossprobe.toml: line 1: byte 0xff is not UTF-8"
    project = write(tmp_path, "[tool.other]\n", "pyproject.toml")
    assert refuse(project)[:2] == ("no_section", "pyproject.toml: has no [tool.lossprobe]")
    write(tmp_path, "[tool]\nlossprobe = 3", "pyproject.toml")
    assert refuse(project)[:2] == ("type", "pyproject.toml: line 2: tool.lossprobe must be a table")


def test_the_file_of_a_folder_is_found(tmp_path):
    def missing():
        with pytest.raises(UsageError) as caught:
            find_config(tmp_path)
        return caught.value.id, caught.value.hint

    assert missing() == ("audit.no_file", INIT_HINT)
    project = write(tmp_path, "[project]\nname = 'x'\n[tool]\nx.y = 1", "pyproject.toml")
    assert missing()[0] == "audit.no_file"
    write(tmp_path, "tool = 3", project.name)
    assert missing()[0] == "audit.no_file"
    write(tmp_path, "[tool.lossprobe]", project.name)
    assert find_config(tmp_path) == project
    write(tmp_path, "[tool.lossprobe", project.name)
    assert missing()[0] == "audit.syntax"
    own = write(tmp_path, "not read yet")
    assert find_config(tmp_path) == own
    own.unlink()
    own.mkdir()
    write(tmp_path, "[tool.lossprobe]", project.name)
    assert find_config(tmp_path) == project


def test_paths_of_the_file_are_relative_to_it_and_those_of_options_to_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub", SHORTEST)
    monkeypatch.chdir(tmp_path)
    audit = read_settings(
        Path("sub/lossprobe.toml"),
        [
            Override("model.checkpoint", "other", "--checkpoint"),
            Override("model.tokenizer", Path("t.json"), "--tokenizer"),
        ],
    )
    assert audit.data[0].path == Path("sub/data/heldout.jsonl")
    assert (audit.model.checkpoint, audit.model.tokenizer) == (Path("other"), Path("t.json"))


def test_options_take_the_place_of_values_and_are_named(tmp_path):
    path = write(tmp_path, SHORTEST)
    audit = read_settings(
        path,
        [
            Override("eval.context", "128", "LOSSPROBE_AUDIT_CONTEXT"),
            Override("eval.context", 64, "--context"),
            Override("eval.score_unknown", "TRUE", "LOSSPROBE_AUDIT_SCORE_UNKNOWN"),
            Override("stats.confidence", "0.9", "LOSSPROBE_AUDIT_CONFIDENCE"),
            Override("check.no-regression.max_increase", 0.5, "--limit"),
            Override("data.v1.2.path", "x", "--data"),
            Override("check.no-regression.data", "v1.2", "--data"),
        ],
    )
    assert (audit.windows.context, audit.windows.score_unknown, audit.stats.confidence) == (64, True, 0.9)
    assert audit.checks[0].limit == Limit("max_increase", 0.5)
    assert [text.name for text in audit.data] == ["heldout", "v1.2"]
    assert audit.checks[0].data == "v1.2"
    origins = audit.origins
    assert origins["eval.context"] == "--context"
    assert origins["stats.confidence"] == "LOSSPROBE_AUDIT_CONFIDENCE"
    assert origins["data.v1.2.path"] == "--data"
    assert origins["check.no-regression.max_increase"] == "--limit"
    assert origins["check.no-regression.metric"] == "lossprobe.toml line 10"
    assert origins["model.dtype"] == "default"


@pytest.mark.parametrize(
    ("key", "value", "id", "message"),
    [
        ("model.dtype", "float8", "value", 'model.dtype = "float8"'),
        ("eval.context", "many", "value", "must be a whole number, not text"),
        ("eval.context", True, "value", "must be a whole number, not true or false"),
        ("stats.confidence", "nan", "value", "must be between 0 and 1"),
        ("model.checkpoint", "-", "value", "must be a file or folder"),
        ("model.checkpoint", b"x", "value", "must be a path in quotes, not something else"),
        ("model.dtpe", "x", "unknown_key", "unknown key model.dtpe"),
        ("model.x.dtype", "x", "unknown_key", "unknown key"),
        ("data.path", "x", "unknown_key", "unknown key"),
        ("data..path", "x", "unknown_key", "unknown key"),
        ("check.other.max", 1, "unknown_key", "unknown key check.other.max"),
        ("schema", 1, "unknown_key", "unknown key schema"),
        ("", 1, "unknown_key", "unknown key"),
        ("check.no-regression.max", 1, "two_limits", "more than one limit: max, max_increase"),
        ("check.no-regression.where", "loss > 1", "where", "known only after scoring"),
    ],
)
def test_bad_options_are_told_by_their_name(tmp_path, key, value, id, message):
    refused = refuse(write(tmp_path, SHORTEST), [Override(key, value, "--the-option")])
    assert refused[0] == id
    if id != "two_limits":
        assert refused[1].startswith("lossprobe.toml: --the-option: ")
    assert message.removeprefix("model.") in refused[1] or message in refused[1]


def test_the_table_of_settings_has_each_with_its_origin(tmp_path):
    audit = read_settings(write(tmp_path, LONGEST), [Override("model.device", "cpu", "--device")])
    table = settings_table(audit)
    assert list(table.columns) == ["key", "value", "origin"]
    assert list(table["key"]) == list(audit.origins)
    expected = [f"{name}.{key}" for name in ("model", "eval") for key in ALL_KEYS[name]]
    expected += [f"data.{name}.{key}" for name in ("heldout", "code.v1") for key in ALL_KEYS["data"]]
    expected += [f"{name}.{key}" for name in ("baseline", "stats") for key in ALL_KEYS[name]]
    keys = [key for key in ALL_KEYS["check"] if key != "id"]
    expected += [f"check.late.digits_1.{key}" for key in keys if key not in LIMITS or key == "max_decrease"]
    expected += [f"check.p99.{key}" for key in keys if key not in LIMITS or key == "max"]
    assert list(table["key"]) == expected
    rows = table.set_index("key")
    assert tuple(rows.loc["model.device"]) == ("cpu", "--device")
    assert tuple(rows.loc["check.p99.max"]) == ("12.5", "lossprobe.toml line 48")
    assert tuple(rows.loc["check.p99.where"]) == ("", "default")
    assert tuple(rows.loc["check.late.digits_1.class"]) == ("digits", "lossprobe.toml line 36")
    assert tuple(rows.loc["eval.score_unknown"]) == ("true", "lossprobe.toml line 13")
    assert rows.loc["model.tokenizer", "value"] == "/abs/meta.pkl"
    short = settings_table(read_settings(write(tmp_path, SHORTEST))).set_index("key")
    assert tuple(short.loc["eval.context"]) == ("the model's limit", "default")
    assert all(isinstance(value, str) for value in short["value"])


PIECES = st.sampled_from(
    ["nan", "true", "-1", "[", "{", "}", '"', "'", '"""', "\n", "\r", "\0", "=", ".", "a.b = 1", "[[check]]", "[]",
     "{}", "]", "é", "1979-05-27", "9" * 40, "\\", "#", "path = 1", "id = 2", "data = 3", "\x1b"]
)  # fmt: skip
OPTION_KEYS = st.sampled_from(
    [
        f"{table}.{key}"
        for table in ("model", "eval", "stats", "check.p99", "data.heldout", "data.z")
        for key in ALL_KEYS[table.partition(".")[0]]
    ]
)
VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.lists(st.integers(), max_size=2)
)


def read_or_refuse(path, overrides=()):
    try:
        audit = read_settings(path, overrides)
    except LossprobeError as caught:
        error = caught
    else:
        assert settings_table(audit).shape[0] == len(audit.origins)
        assert all(math.isfinite(check.limit.value) for check in audit.checks)
        return
    assert isinstance(error, UsageError)
    assert error.message.isprintable()
    assert (error.hint or "").isprintable()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of regular expressions
@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from([SHORTEST, LONGEST]),
    st.lists(
        st.tuples(st.integers(0, 1000), st.integers(0, 12), PIECES | st.binary(max_size=3)), min_size=1, max_size=4
    ),
    st.sampled_from(["lossprobe.toml", "pyproject.toml"]),
)
def test_files_with_damage_are_read_or_refused(folder, text, damage, name):
    if name == "pyproject.toml":
        text = in_project(text)
    data = text.encode()
    for start, size, piece in damage:
        data = data[:start] + (piece if isinstance(piece, bytes) else piece.encode()) + data[start + size :]
    read_or_refuse(write(folder, data, name))


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(folder, data):
    read_or_refuse(write(folder, data))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@settings(deadline=None)
@given(
    OPTION_KEYS | st.text(max_size=10),
    VALUES,
    st.text(max_size=5),
)
def test_any_option_is_taken_or_refused(folder, key, value, origin):
    read_or_refuse(write(folder, LONGEST), [Override(key, value, origin)])
