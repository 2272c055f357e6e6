"""A report as one HTML file that asks for nothing else."""

from importlib.resources import files

from maotune.report.document import Report

WIDTH = 18
"""Columns of figures across a screen: six data sets of three, as the paper prints Table 1."""


def page(report: Report) -> str:
    """The whole report; every text is escaped by the template engine, only drawings are markup."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = files("maotune.report") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["drawing"] = Markup
    template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
    return template.render(report=report, width=WIDTH, css=Markup((folder / "page.css").read_text(encoding="utf-8")))
