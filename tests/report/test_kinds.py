"""The heading of a picture says which of its models are adapters or quantised, once, and stays where it is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lossprobe.report.names import in_words
from lossprobe.report.style import new_figure, tell_kinds

LORA = "LoRA of rank 4 on a-base-with-a-long-name-and-more-of-it"
HEADING = "x − y on text, context 256"


def run(name, words=None, stored=None):
    model = SimpleNamespace(quantization=stored, stored_dtype=stored)
    adapter = words and {"words": words}
    return SimpleNamespace(
        name=name, settings=SimpleNamespace(checkpoint=model), manifest={"measured": {"adapter": adapter}}
    )


PLAIN, ADAPTER, EXPORT = run("base"), run("lora", LORA), run("export", stored="int8 (GPTQ)")
ON_QUANTISED = run("lora", "LoRA of rank 4 on base in NF4 (bitsandbytes)", "NF4 (bitsandbytes)")


@pytest.mark.parametrize(
    ("runs", "added"),
    [
        ([PLAIN, PLAIN], ""),
        ([PLAIN, ADAPTER], f"\nlora ({LORA})"),
        ([EXPORT, PLAIN], "\nexport in int8 (GPTQ)"),
        ([PLAIN, ON_QUANTISED], "\nlora (LoRA of rank 4 on base in NF4 (bitsandbytes))"),
        ([run(f"checkpoint-{step}", LORA) for step in range(6)], f"\n{LORA}"),
    ],
)
def test_kinds_stand_below_a_heading_that_does_not_name_them(runs, added):
    figure = new_figure(3.0, HEADING)
    place = figure._suptitle.get_position(), figure._suptitle.get_ha()
    tell_kinds(figure, runs)
    assert figure.get_suptitle() == HEADING + added
    assert (figure._suptitle.get_position(), figure._suptitle.get_ha()) == place


def test_a_heading_that_names_them_stays_as_it_is_even_where_it_is_broken():
    heading = f"{in_words('lora', ADAPTER)} on text {'word ' * 12}".strip()
    figure = new_figure(3.0, heading)
    before = figure.get_suptitle()
    assert "\n" in before
    tell_kinds(figure, [ADAPTER])
    assert figure.get_suptitle() == before
