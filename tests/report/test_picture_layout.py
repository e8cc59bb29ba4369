"""Every picture, of whatever data: texts apart and inside it, legends off the data, bands where losses can be."""

import copy
import dataclasses
import io
import itertools

import numpy as np
import pytest
from drawn_runs import as_pairs, document_numbers, draw_logits, draw_targets, tempered_logits, write_drawn
from fake_pairs import write_pair
from fake_runs import Doc, words
from geometry import check_bands, check_layout
from matplotlib.figure import Figure

from lossprobe.analysis.calibration.calibration import measure_calibration
from lossprobe.analysis.compare.compare import compare
from lossprobe.analysis.compare.measured_divergence import measure_pair
from lossprobe.analysis.gap.gap import measure_gap
from lossprobe.analysis.hardest import find_hardest
from lossprobe.analysis.objectives.formulas import ObjectiveOptions
from lossprobe.analysis.objectives.objectives import measure_objectives
from lossprobe.analysis.options import SeriesOptions
from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.analysis.positions import PositionLosses, measure_positions
from lossprobe.analysis.preferences.preferences import measure_preferences
from lossprobe.analysis.protocols.protocols import measure_protocol
from lossprobe.analysis.protocols.table import Refusal, compare_protocols
from lossprobe.analysis.reconcile.logged_value import typed_value
from lossprobe.analysis.reconcile.stored import reconcile_run
from lossprobe.analysis.selfcheck import DifferenceLimits, Variant, judge_variants
from lossprobe.analysis.series.series import measure_series
from lossprobe.analysis.tokens import measure_tokens
from lossprobe.plan.protocols import PROTOCOLS
from lossprobe.report.plots.calibration import plot_calibration
from lossprobe.report.plots.compare import plot_compare
from lossprobe.report.plots.gap import plot_gap
from lossprobe.report.plots.hardest import plot_hardest
from lossprobe.report.plots.objectives import plot_objectives
from lossprobe.report.plots.perplexity import plot_perplexity
from lossprobe.report.plots.positions import plot_positions
from lossprobe.report.plots.preferences import plot_preferences
from lossprobe.report.plots.protocols import plot_protocols
from lossprobe.report.plots.reconcile import plot_reconcile
from lossprobe.report.plots.selfcheck import plot_selfcheck
from lossprobe.report.plots.series import plot_series
from lossprobe.report.plots.tokens import plot_tokens

LONG = "an_experiment_whose_name_goes_on_and_on_漢字漢字漢字漢字_step_000{}00000"
CHINESE = ["漢字漢字漢字漢字漢字漢字漢字漢字", "$\\frac{a}{b}$ and _x^2_", "a very long value of a field " * 4]
KINDS = ("common", "hostile", "one document", "one token", "many documents", "certain")


def write_models(folder, kind: str, models: int = 4) -> list:
    """Write runs of several models over one text of a kind."""
    rows = {"one token": 1, "many documents": 3000, "one document": 300}.get(kind, 500)
    rng = np.random.default_rng(5)
    logits = draw_logits(rng, rows, 30)
    targets = draw_targets(rng, logits)
    count = {"one document": 1, "one token": 1, "many documents": 1000}.get(kind, 12)
    documents = document_numbers(rng, rows, count) if count > 1 else np.zeros(rows, int)
    names = ["漢字" * 4 if kind == "hostile" else f"group {number % 40}" for number in range(count)]
    if kind == "hostile":
        names = [CHINESE[number % 3] + (str(number) if number < 6 else "") for number in range(count)]
    if kind == "certain":
        logits = np.where(np.arange(30) == targets[:, None], 0.0, -300.0)
    made = []
    for index, scale in enumerate((1.0, 0.6, 1.4, 2.0)[:models]):
        name = LONG.format(index) if kind == "hostile" else f"model-{index}"
        text = LONG.format(9) if kind == "hostile" else "text"
        made.append(write_drawn(folder / str(index), tempered_logits(logits, scale), targets, documents, name=name,
                                text_name=text, fields=[{"lang": name} for name in names]).run)  # fmt: skip
    return made


def checked(figure: Figure) -> Figure:
    check_layout(figure)
    check_bands(figure)
    return figure


@pytest.fixture(scope="module", params=[kind if kind == "common" else pytest.param(kind, marks=pytest.mark.thorough)
                                        for kind in KINDS])  # fmt: skip
def models(request, tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("layout"), request.param)


@pytest.mark.thorough
def test_series_of_checkpoints(models, request):
    slices = (None, "token", "lang")
    if request.node.callspec.params["models"] != "common":  # the odd data, by make thorough
        slices += ("class", "context", "document", "type", "frequency")
    for by in slices:
        result = measure_series(models, None, SeriesOptions(by=by, state="unstable", top=12))
        checked(plot_series(models[0], result if by else dataclasses.replace(result, worse_at_end=True)))


@pytest.mark.thorough
def test_one_model(models, request):
    run = models[0]
    checked(plot_tokens(run, measure_tokens(run)))
    whole = request.node.callspec.params["models"] != "common"  # the odd data, by make thorough
    for by in ("token", "type", "document", "class", "lang") if whole else ("type", "class"):
        checked(plot_hardest(run, find_hardest(run, by, 100, 1)))
    for by in (None, "document", "lang") if whole else ("lang",):
        checked(plot_perplexity(run, measure_perplexity(run, by)))
    bins = [("context", "geometric"), ("document-position", "every")]
    for choice in itertools.product(("context", "document-position"), ("geometric", "every")) if whole else bins:
        checked(plot_positions(run, measure_positions(run, *choice)))
    checked(plot_objectives(run, measure_objectives(run)))


@pytest.mark.thorough
def test_two_models(models):
    for by in ("token", "type", "document", "context", "class", "lang") if is_hostile(models) else ("lang",):
        checked(plot_compare(models[0], compare(*models[:2], by, 100)))
    checked(plot_compare(models[0], compare(models[0], models[0], "class", 5)))


@pytest.mark.thorough
def test_several_models(models):
    choices = [(2, "document")]
    if is_hostile(models):
        choices = [(1, None), (3, "class"), (4, "lang"), (2, "context"), (2, "frequency")]
    for count, by in choices:
        checked(plot_calibration(models[0], measure_calibration(models[:count], by)))


def is_hostile(models) -> bool:
    return models[0].name != "model-0"


@pytest.mark.thorough
def test_every_choice_of_calibration_changes_its_picture(tmp_path):
    models = write_models(tmp_path, "common", 2)
    choices = [{}, *({"by": by} for by in ("document", "context", "class", "frequency", "lang")), {"smoothing": 0.3}]
    shown = set()
    for choice in choices:
        figure = checked(plot_calibration(models[0], measure_calibration(models, **choice)))
        texts = [text.get_text() for axes in figure.axes for text in (*axes.get_yticklabels(), axes.title)]
        shown.add(tuple(texts + [axes.get_title(loc="left") for axes in figure.axes]))
    assert len(shown) == len(choices)
    groups = [text.get_text() for text in plot_calibration(
        models[0], measure_calibration(models, by="lang")).axes[0].get_yticklabels()]  # fmt: skip
    assert {group.split("  (")[0] for group in groups} == {f"group {number}" for number in range(12)}


@pytest.mark.thorough  # test_plots and test_plot_objectives hold what each picture shows
def test_every_choice_of_one_model_changes_its_picture(tmp_path):
    (run,) = write_models(tmp_path, "common", 1)
    plain = {"micro_batch": (1,)}
    choices = [
        *(plot_tokens(run, measure_tokens(run, where)) for where in ((), ("loss > 1",))),
        *(plot_hardest(run, find_hardest(run, by, 20, 5)) for by in ("token", "type", "document", "class", "lang")),
        *(plot_hardest(run, find_hardest(run, "type", top, least)) for top, least in ((5, 5), (20, 30))),
        *(plot_perplexity(run, measure_perplexity(run, by)) for by in (None, "document", "lang")),
        *(plot_positions(run, measure_positions(run, by, bins))
          for by in ("context", "document-position") for bins in ("geometric", "every")),
        *(plot_objectives(run, measure_objectives(run, ObjectiveOptions(**plain | choice))) for choice in (
            {}, {"smoothing": 0.3}, {"focal": 1.0}, {"margin": 2.0}, {"z_weight": 0.5}, {"micro_batch": (1, 2)},
            {"batch_tokens": 99}, {"where": ("loss > 1",)})),
    ]  # fmt: skip
    drawn = set()
    for figure in choices:
        sink = io.BytesIO()
        figure.set_layout_engine("none")  # arranging the axes takes most of the time, and adds no difference
        figure.savefig(sink, format="png", dpi=50)
        drawn.add(sink.getvalue())
    assert len(drawn) == len(choices)


@pytest.mark.thorough
def test_a_gap(models):
    held_out = dataclasses.replace(models[0], manifest=copy.deepcopy(models[0].manifest))
    held_out.manifest["settings"]["text"]["sha256"] = "another"
    checked(plot_gap(models[0], measure_gap(models[0], held_out)))


@pytest.mark.parametrize(
    "kl", [pytest.param(0.2, marks=pytest.mark.thorough), pytest.param(0.0, marks=pytest.mark.thorough), np.inf]
)
def test_a_divergence(tmp_path, kl):
    first, second = write_models(tmp_path, "hostile", 2)
    values = np.random.default_rng(0).uniform(0.5, 1.0, first.counts["scored_tokens"]) * 0.2
    values[-1] = kl
    divergence = measure_pair(write_pair(first, second, values if kl else 0 * values), "type")
    checked(plot_compare(first, compare(first, second).with_divergence(divergence)))


@pytest.mark.thorough
def test_very_many_positions_are_thinned(models):
    t = np.arange(1, 100_000)
    rng = np.random.default_rng(0)
    result = measure_positions(models[0], bins="every")
    losses = 2 + 3 / np.sqrt(t) + rng.normal(0, 0.5, len(t)).clip(-1.9)
    every = result.every.iloc[[0] * len(t)].reset_index(drop=True).assign(
        context=t, context_last=t, mean_loss_nats=losses, low=losses - 3, high=losses + 3, count=5
    )  # fmt: skip
    many: PositionLosses = dataclasses.replace(result, every=every, table=every, fit=None)
    upper, _ = checked(plot_positions(models[0], many)).axes
    assert len(upper.lines[0].get_xdata()) < 32 * 17
    low = upper.collections[0].get_paths()[0].vertices[:, 1].min()
    assert low >= 0


@pytest.mark.thorough
def test_pairs_and_logged_numbers(models):
    run, other = models[:2]
    if run.counts["documents"] > 1:
        pair, reference = as_pairs(run), as_pairs(other)
        checked(plot_preferences(pair, measure_preferences(pair)))
        checked(plot_preferences(pair, measure_preferences(pair, reference)))
    for logged in ("2.5", "0.00001", "123456.789"):
        checked(plot_reconcile(run, reconcile_run(run, typed_value(logged))))


@pytest.mark.thorough
def test_protocols(make_run):
    own = make_run([Doc([b" a", b" b", b"\n"], [1.0, 2.0, 6.0])], name=LONG.format(0), text_name=LONG.format(1))
    reason = "the tokenizer has no BOS, and the tool needs one " * 5
    results = [
        measure_protocol(own, name) if place % 2 and name != "gptq" else Refusal(name, reason)
        for place, name in enumerate(PROTOCOLS)
    ]
    checked(plot_protocols(own, compare_protocols(own, results)))


@pytest.mark.thorough
def test_a_self_check(make_run):
    run = make_run([words("first_token", 1, 2)], name=LONG.format(0))
    reference = np.array([1.0, 2.0, 3.0])
    variants = [Variant(f"check {number}", CHINESE[number % 3], DifferenceLimits(1e-5, 1e-3) if number % 2 else None,
                        reference + number * 1e-4) for number in range(12)]  # fmt: skip
    checked(plot_selfcheck(run, judge_variants(reference, variants)))


@pytest.mark.thorough
def test_the_checks_can_fail():
    figure = Figure(figsize=(8, 2), layout="constrained")
    axes = figure.subplots()
    axes.text(0.5, 0.5, "one text over another", fontsize=9)
    axes.text(0.51, 0.5, "another one", fontsize=9)
    with pytest.raises(AssertionError, match="cover each other"):
        check_layout(figure)
    axes.fill_between([0, 1], [-1, -1], [1, 1])
    axes.set_ylabel("mean loss (nats)")
    with pytest.raises(AssertionError):
        check_bands(figure)
