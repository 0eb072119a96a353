"""What the verbs print: plain aligned text that can be pasted anywhere."""

from collections.abc import Sequence
from pathlib import Path

from resnetlab.core.errors import ConfigError
from resnetlab.records.run import Metrics, RunRecord
from resnetlab.records.study import StudyRecord
from resnetlab.report.run.tables import best_sentence, changes
from resnetlab.report.study.tables import answer_lines, contrast_tables, error_table, gradient_table
from resnetlab.report.table import Table


def print_names(names: Sequence[str], pattern: str) -> None:
    """One name a line. Raises ``ConfigError`` where the pattern matches none."""
    if not names:
        raise ConfigError(f"no network matches {pattern!r}; resnetlab list shows them all")
    print("\n".join(names))


def print_metrics(metrics: Metrics, split: str) -> None:
    """Loss, error and accuracy on the split."""
    accuracy = f"accuracy {1 - metrics.error:.2%}"
    print(f"{split} loss {metrics.loss:.4f}  error {metrics.error:.2%}  {accuracy}  n {metrics.n}")


def print_run(record: RunRecord, out: Path) -> None:
    """The result of a run, if it has one, and where the run and its page are."""
    if record.final:
        print_metrics(record.final.reported, record.final.reported_split)
        if record.chosen_by:
            print(best_sentence(record))
    for line in changes(record):
        print(line)
    print(f"{record.model}, {record.parameters:,} parameters, {record.seconds:.1f} s; run in {out}")
    if (out / "report.html").is_file():
        print(f"report: {out / 'report.html'}")


def print_study(study: StudyRecord, page: Path) -> None:
    """The tables of a study, its answers, the rule of its contrasts, and where the page is."""
    for table in (error_table(study), *contrast_tables(study), gradient_table(study)):
        print_table(table)
        print()
    if len(study.runs) < study.planned:
        print(f"not complete: {len(study.runs)} of {study.planned} runs have ended")
    print("\n".join(answer_lines(study)))
    print(f"\nreport: {page}")


def print_table(table: Table) -> None:
    """Caption, heads and rows, every column as wide as its widest text."""
    print(table.caption)
    print_columns([table.heads, *table.rows])


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Rows of texts in aligned columns, two blanks apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
