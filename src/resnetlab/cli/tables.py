"""What the verbs print: plain aligned text that can be pasted anywhere."""

import os
import sys
import textwrap
from collections.abc import Sequence
from errno import EBADF, EIO, EPIPE
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path

from resnetlab.core.errors import ConfigError, StorageError, printable
from resnetlab.records.run import Metrics, RunRecord
from resnetlab.records.study import StudyRecord
from resnetlab.report.run.tables import best_sentence, changes
from resnetlab.report.study.tables import answer_lines, contrast_tables, error_table, gradient_table
from resnetlab.report.study.tuning import edge_lines, tuning_table
from resnetlab.report.table import Table
from resnetlab.train.recipe import recipe_header, shipped_recipes

RECIPE_COLUMNS = {"name": 28, "what": 32, "cost": 26, "expected": 28}
"""What ``resnetlab recipes`` prints of each recipe, and how many letters wide."""


def show(*lines: object, errors: bool = False) -> None:
    """Print each line, on standard output or with ``errors`` on standard error.

    Here, and nowhere else, what cannot be printed is escaped: a terminal code in a path, a line break in a name. Where
    nobody reads any more (``resnetlab list | head``, a terminal that was closed) nothing is printed, and work goes on.
    Raises ``StorageError`` where what is printed goes to a disk that is full.
    """
    stream = sys.stderr if errors else sys.stdout
    if stream is None:
        return
    try:
        stream.write("".join(f"{printable(line)}\n" for line in lines))
        stream.flush()
    except OSError as error:
        # What is still to be written must not fail again when Python ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        if error.errno not in (EPIPE, EIO, EBADF):
            raise StorageError(
                f"cannot print ({error.strerror}); what was to be written to files is written"
            ) from error


def print_names(names: Sequence[str], pattern: str) -> None:
    """One name a line. Raises ``ConfigError`` where the pattern matches none."""
    if not names:
        raise ConfigError(f"no network matches {pattern!r}; resnetlab list shows them all")
    show(*names)


def print_recipes(pattern: str) -> None:
    """The shipped recipes whose names match, each as wide as a screen. Raises ``ConfigError`` where none does."""
    found = {name: path for name, path in shipped_recipes().items() if fnmatchcase(name, pattern)}
    if not found:
        raise ConfigError(f"no recipe matches {pattern!r}; resnetlab recipes shows them all")
    rows = [tuple(RECIPE_COLUMNS)]
    for name, path in found.items():
        texts = recipe_header(path) | {"name": name}
        cells = [textwrap.wrap(texts.get(column, ""), width) for column, width in RECIPE_COLUMNS.items()]
        rows += [("",) * len(cells), *zip_longest(*cells, fillvalue="")]
    print_columns(rows)


def print_metrics(metrics: Metrics, split: str) -> None:
    """Loss, error and accuracy on the split."""
    accuracy = f"accuracy {1 - metrics.error:.2%}"
    show(f"{split} loss {metrics.loss:.4f}  error {metrics.error:.2%}  {accuracy}  n {metrics.n}")


def print_run(record: RunRecord, out: Path) -> None:
    """The result of a run, if it has one, and where the run and its page are."""
    if record.final:
        print_metrics(record.final.reported, record.final.reported_split)
        if record.chosen_by:
            show(best_sentence(record))
    for line in changes(record):
        show(line)
    show(f"{record.model}, {record.parameters:,} parameters, {record.seconds:.1f} s; run in {out}")
    if (out / "report.html").is_file():
        show(f"report: {out / 'report.html'}")


def print_study(study: StudyRecord, page: Path) -> None:
    """The tables of a study, its answers, the rule of its contrasts, and where the page is."""
    tuning = tuning_table(study)
    for table in (error_table(study), *([tuning] if tuning else []), *contrast_tables(study), gradient_table(study)):
        print_table(table)
        show("")
    if len(study.runs) < study.planned:
        show(f"not complete: {len(study.runs)} of {study.planned} runs have ended")
    show(*answer_lines(study), *edge_lines(study))
    show("", f"report: {page}")


def print_table(table: Table) -> None:
    """Caption, heads and rows, every column as wide as its widest text."""
    show(table.caption)
    print_columns([table.heads, *table.rows])


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Rows of texts in aligned columns, two blanks apart."""
    rows = [[printable(text) for text in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    show(*("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows))
