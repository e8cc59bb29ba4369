"""What a page holds: sections in order, each with views."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lossprobe.analysis.coloured_text.coloured_text import ColouredText
    from lossprobe.report.views.view import View


@dataclass(frozen=True)
class Exhibit:
    """A view in a section.

    Attributes:
        title: its heading inside the section; "" where the section has no other view.
        view: what is shown.
        pictured: whether its picture is drawn.
        command: the command line that prints it.
    """

    title: str
    view: View
    pictured: bool = False
    command: str = ""


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        id: its name in links, such as "positions".
        title: its heading.
        exhibits: its views, in order.
        missing: why views are not shown, one line each.
    """

    id: str
    title: str
    exhibits: tuple[Exhibit, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: what it is about: models and text.
        subtitle: windows and sizes.
        sections: in order.
        made_by: name and version of what made it.
        text: the text coloured by loss, which stands after the section `text_after`; None for none.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...] = field(repr=False)
    made_by: str = ""
    text: ColouredText | None = field(default=None, repr=False)
    text_after: str = ""
