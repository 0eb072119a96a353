"""Names of classes and files as nobody would wish them, and the pages that hold them."""

from dataclasses import replace
from typing import Any

from resnetlab.report.diagnosis import cam
from resnetlab.report.diagnosis.page import draw_diagnosis, render_diagnosis_page
from resnetlab.report.run.figures import draw_run_figures
from resnetlab.report.run.page import render_run_page
from resnetlab.report.study.diagnosis import draw_study_diagnosis, render_study_diagnosis
from resnetlab.report.study.explore import render_explore
from resnetlab.report.study.figures import draw_figures
from resnetlab.report.study.page import render_page
from tests.made import HOSTILE, axis_study, depth_study, diagnosis, run, study_diagnosis

NAMES = (
    HOSTILE,
    "</title><script>alert(1)</script>",
    "</style><style>body{display:none}</style>",
    "<!-- not closed",
    "--><b>shown</b>",
    "]]><script>alert(1)</script>",
    "<![CDATA[<i>x</i>",
    "</svg><img src=x onerror=alert(1)>",
    "</text><a href='javascript:alert(1)'>x</a>",
    "</td></tr></table><h1>mine</h1>",
    '" onfocus="alert(1)" autofocus tabindex="1',
    "' onmouseover='alert(1)",
    "x` onload=`alert(1)",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "https://example.org/?a=1&b=2",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;&amp;&quot;&NotAnEntity;",
    "{{ 7*7 }}{% raw %}{{ study.command }}",
    "{# comment #}${7*7}#{7*7}<%= 7*7 %>",
    "$x_1$ and $\\frac{",
    "\\$5 \\u003cscript\\u003e",
    "url(https://example.org/x.png); } * { color: red",
    "\u202ereversed \u2066isolate",
    "nul \x00 bell \x07 escape \x1b[31m delete \x7f",
    "two\r\nlines\ttab\u2028and\u2029more",
    "lone \udce9 surrogate, as of bytes that are no UTF-8",
    "../../etc/passwd; rm -rf ~ | $(id) `id`",
    "Ÿ̵̛͉m̷͇̈́l̶ 猫 🐈‍⬛ \ufeff\ufffe",
    "W" * 4000,
)


def run_page(name: str, drawn: Any = None) -> str:
    """The page of a run on classes of that name, with figures that were drawn before or, without them, now."""
    record, report = run(name)
    return render_run_page(record, report, f"resnetlab train --data {name}", drawn or draw_run_figures(record))


def depth_page(name: str, drawn: Any = None) -> str:
    """The page of a study of depth and shortcuts, which lacks some runs."""
    record = depth_study(name, planned=18)
    return render_page(record, drawn or draw_figures(record))


def axis_page(name: str, drawn: Any = None) -> str:
    """The page of a study in which an axis and a value have that name."""
    record = axis_study(name)
    return render_page(record, drawn or draw_figures(record))


def explore_page(name: str, _drawn: Any = None) -> str:
    """The page of two conditions of such a study; its program draws it where it is opened."""
    return render_explore(axis_study(name))


def diagnosis_page(name: str, drawn: Any = None) -> str:
    """The page of a diagnosis of a network of that name."""
    found = replace(diagnosis(name), notes=[f"note {name}", name])
    # Names are drawn on the sheets of images alone.
    drawn = drawn | {"cam": cam.draw(found)} if drawn else draw_diagnosis(found)
    return render_diagnosis_page(found, drawn)


def seedwise_page(name: str, drawn: Any = None) -> str:
    """The page of a study's diagnosis in which a value has that name."""
    found = study_diagnosis(name)
    # All figures write a name by one function; without gradients and blocks that of the lesions alone is drawn.
    runs = [replace(run, net=replace(run.net, gradients=[], blocks=[])) for run in found.runs]
    return render_study_diagnosis(found, drawn or draw_study_diagnosis(replace(found, runs=runs)))


PAGES = {
    "run": run_page,
    "depth": depth_page,
    "axis": axis_page,
    "explore": explore_page,
    "diagnosis": diagnosis_page,
    "seedwise": seedwise_page,
}


def drawn_without_names(kind: str) -> Any:
    """The figures of a page in which no name from outside stands, so that they may be drawn once; else None."""
    made = {
        "run": lambda: draw_run_figures(run()[0]),
        "depth": lambda: draw_figures(depth_study()),
        "diagnosis": lambda: draw_diagnosis(diagnosis()),
    }
    return made[kind]() if kind in made else None


def pages_of(kind: str) -> dict[str, str]:
    """The page of that kind with each of the names."""
    drawn = drawn_without_names(kind)
    return {name: PAGES[kind](name, drawn) for name in NAMES}
