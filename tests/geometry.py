"""Checks of where things stand in a picture: texts apart and inside, legends off the data, no band below 0."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lossprobe.report.pictures import default_style
from lossprobe.report.style import SMALL, WIDTH

SLACK = 1.0  # pixels: boxes of texts have a little air


def check_layout(figure: Figure) -> None:
    """Assert that no text covers another one or leaves the picture, and that no legend stands on a panel."""
    with default_style():
        FigureCanvasAgg(figure)
        figure.draw_without_rendering()  # places everything as drawing does, and makes no pixels
    assert figure.get_figwidth() == WIDTH
    boxes = text_boxes(figure)
    page = figure.bbox
    for name, box, size in boxes:
        assert size >= SMALL, f"{name!r}: {size} points"
        assert page.x0 - SLACK <= box.x0 <= box.x1 <= page.x1 + SLACK, f"{name!r} leaves the picture at its sides"
        assert page.y0 - SLACK <= box.y0 <= box.y1 <= page.y1 + SLACK, f"{name!r} leaves the picture above or below"
    for (one, first, _), (other, second, _) in itertools.combinations(boxes, 2):
        assert not _cover(first, second), f"{one!r} and {other!r} cover each other"
    for axes in figure.axes:
        box = axes.get_legend()
        for panel in figure.axes if box is not None else ():
            assert not _cover(box.get_window_extent(), panel.get_window_extent()), "a legend stands on a panel"
        assert min(axes.get_window_extent().size) > 8, "a panel has no room"


def check_bands(figure: Figure, least: float = 0.0) -> None:
    """Assert that nothing filled or barred begins below the least value, and none is cut by an end of its axis."""
    for axes in figure.axes:
        for drawn in axes.collections:
            points = np.concatenate([path.vertices for path in drawn.get_paths()] or [np.zeros((0, 2))])
            points = points[np.isfinite(points).all(axis=1)]
            if not len(points):
                continue
            for column, word, (first, last) in ((0, "x", axes.get_xlim()), (1, "y", axes.get_ylim())):
                label = axes.get_xlabel() if word == "x" else axes.get_ylabel()
                if label.startswith(("mean loss", "loss")):
                    assert points[:, column].min() >= least
                    assert min(first, last) - 1e-9 <= points[:, column].min()
                    assert points[:, column].max() <= max(first, last) + 1e-9


def text_boxes(figure: Figure) -> list:
    """Return every text that is drawn: what it says, its box in pixels, its size in points."""
    texts = [*figure.texts]  # the heading among them
    for part in figure.subfigs:
        texts += part.texts
    for axes in figure.axes:
        if not axes.get_visible():
            continue
        texts += [axes.title, axes._left_title, axes._right_title]
        if axes.axison:
            texts += [axes.xaxis.label, axes.yaxis.label]
            for axis in (axes.xaxis, axes.yaxis):
                texts += [tick.label1 for tick in axis._update_ticks() if tick.label1.get_visible()]
                texts += [axis.get_offset_text()]
            texts += axes.texts
        if axes.get_legend() is not None:
            texts += axes.get_legend().get_texts()
    shown = [text for text in texts if text is not None and text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent(), text.get_fontsize()) for text in shown]


def _cover(one, other) -> bool:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return width > SLACK and height > SLACK
