"""Every format holds what the report says, and names that are markup stay names."""

import csv
import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from maotune.report.build import build_report
from maotune.report.content import Gallery
from maotune.report.frame import ExperimentRuns
from maotune.report.render import csv as csv_of
from maotune.report.render import escape_latex, html, latex, markdown, terminal
from tests.report.conftest import HOSTILE, Reported


def test_the_terminal_shows_the_answer_and_the_averages(hostile: Reported) -> None:
    file = io.StringIO()
    Console(file=file, width=110, no_color=True).print(terminal(hostile.report))
    shown = " ".join(file.getvalue().split())
    assert hostile.report.answer in shown
    assert re.search(r"CoOp plain H [+−]", shown), "the table of differences"
    assert "KgCoOp step-matched" in shown, "the table of averages"
    assert "<b>no luck" in shown
    assert max(map(len, file.getvalue().splitlines())) <= 110


def test_markdown_has_tables_of_equal_rows_and_no_markup_of_others(hostile: Reported) -> None:
    text = markdown(hostile.report)
    rows = [re.findall(r"(?<!\\)\|", line) for line in text.splitlines() if line.startswith("|")]
    counts = [len(row) for row in rows]
    heads = [place for place, line in enumerate(text.splitlines()) if re.fullmatch(r"\|( :?--:? \|)+", line)]
    assert len(heads) == len(hostile.report.tables)
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert sum(len(block.splitlines()) for block in blocks) == len(counts)
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert "<img" not in text
    assert r'R&amp;D "50%" $x\_1$ #2 \| {y}' in text
    assert text.count("**") % 2 == 0


def test_markdown_keeps_a_command_that_has_backticks_in_one_block(hostile: Reported) -> None:
    assert "```sh\nmaotune run base-to-new\n```" in markdown(hostile.report)


SPECIAL = re.compile(r"(?<!\\)[#%&_$^~]")


def test_latex_is_balanced_and_escaped(hostile: Reported) -> None:
    text = latex(hostile.report)
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    opened, closed = (sorted(re.findall(rf"\\{word}\{{(\w+)\}}", body)) for word in ("begin", "end"))
    assert opened == closed != []
    depth = 0
    for mark in re.findall(r"(?<!\\)[{}]", body):
        depth += 1 if mark == "{" else -1
        assert depth >= 0
    assert depth == 0
    labels = re.findall(r"\\label\{(.+?)\}", body)
    assert len(labels) == len(set(labels)) > 3
    for tabular in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", body, re.DOTALL):
        for line in tabular[1].splitlines():
            if line.endswith(r"\\") and r"\multicolumn" not in line:
                assert len(re.findall(r"(?<!\\)&", line)) == len(tabular[0]) - 1
    allowed = re.sub(r"\$(?:-|\\[a-zA-Z]+)\$", "", body)  # a minus, or a symbol
    assert {found[0] for found in SPECIAL.finditer(allowed)} <= {"&"}


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (r"a\b", r"a\textbackslash{}b"),
        ("50% of R&D_#1", r"50\% of R\&D\_\#1"),
        ("{x}^~$", r"\{x\}\textasciicircum{}\textasciitilde{}\$"),
        ("−0.5 ± 1 → <i>", r"$-$0.5 $\pm$ 1 $\rightarrow$ \textless{}i\textgreater{}"),
    ],
)
def test_latex_text(given: str, written: str) -> None:
    assert escape_latex(given) == written


def test_csv_has_a_row_for_each_trial_and_measure(hostile: Reported) -> None:
    (study,) = hostile.experiments
    rows = [*csv.DictReader(io.StringIO(csv_of([study])))]
    scores = {(run.trial.name, test): value for run in study.finished for test, value in run.result.scores.items()}
    written = {(row["trial"], row["measure"]): float(row["value"]) for row in rows if row["prompts"] == "result"}
    assert written == pytest.approx(scores, abs=1e-4)
    assert {row["recipe"] for row in rows if row["learner"] == "coop" and row["method"] == "mao"} == {
        row["recipe"] for row in rows if row["learner"] == "coop" and row["method"] == "mao" and row["seed"] == "1"
    }, "the seed is not part of the recipe's hash"
    new = [row for row in rows if row["method"] == "mao" and row["measure"] == "new" and row["prompts"] == "result"]
    assert {row["scored_with"] for row in new} == {"new"}
    assert all(row["commit"] == "0123456789abcdef" and row["pseudo_label_accuracy"] for row in new)


def test_no_format_holds_an_escape_sequence_or_a_formula(hostile: Reported) -> None:
    (study,) = hostile.experiments
    first = study.finished[0]
    named = replace(first, result=replace(first.result, dataset="=cmd|' /C calc'!A0\x1b[2J"))
    (row, *_) = csv.DictReader(io.StringIO(csv_of([replace(study, finished=[named])])))
    assert row["dataset"] == r"'=cmd|' /C calc'!A0\x1b[2J"
    report = replace(hostile.report, subtitle="photos \x1b[2J \u202egpj")
    for text in (markdown(report), html(report)):
        assert "x1b" in text
        assert not re.search("[\x1b\u202e]", text)


def test_what_is_missing_and_what_failed_is_said(hostile: Reported) -> None:
    said = " ".join(hostile.report.warnings)
    assert "1 of 18 trials are not finished (KgCoOp MAO: 1)" in said
    assert "1 of 18 trials failed" in said
    assert "ValueError: <b>no luck" in said
    assert hostile.report.answer.startswith("So far, MAO ")


def test_there_is_a_report_before_any_run_has_finished(hostile: Reported) -> None:
    waiting = ExperimentRuns("base-to-new", [], hostile.sweep.trials)
    report = build_report([waiting], hostile.sweep.commands, "soon")
    assert report.answer == "There is no finished run yet."
    assert "18 of 18 trials are not finished" in report.warnings[0]
    for written in (html(report), markdown(report), latex(report)):
        assert "soon" in written or written.startswith("%")
    assert csv_of([waiting]).startswith("learner,method,variant,dataset,seed")


def test_class_names_are_in_the_report(hostile: Reported) -> None:
    shown = {
        picture.title
        for section in hostile.report.sections
        for part in section.parts
        if isinstance(part, Gallery)
        for picture in part.pictures
    }
    assert shown <= set(HOSTILE)
    assert shown
