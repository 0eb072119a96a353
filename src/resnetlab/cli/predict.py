"""``resnetlab predict``: the most probable classes of files."""

import json
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Literal

import tyro

from resnetlab.cli.tables import show
from resnetlab.core.errors import ConfigError, DataError, StoppedError, printable

if TYPE_CHECKING:
    from resnetlab.deploy.engines import Predictor
    from resnetlab.deploy.predict import Settings, Sources
    from resnetlab.deploy.rows import Row


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Name the most probable classes of images: a table, or with --out a file, which the same command resumes.

    A file that cannot be read is a row with the reason, never an end; the exit code is 3 then.
    """

    network: tyro.conf.Positional[str]
    """Folder of a run or a bundle, or hub:owner/name."""
    sources: tyro.conf.Positional[tuple[str, ...]]
    """Images, folders with all below, patterns such as 'photos/*.jpg', or - for a list of paths on standard input."""
    top: int = 5
    """So many classes each."""
    out: Path | None = None
    """File of rows, in the order of the sources: .csv, .jsonl or .parquet. Probabilities are rounded to 6 digits."""
    engine: Literal["auto", "torch", "onnx", "openvino", "int8", "pt2"] = "auto"
    """What computes. auto: ONNX Runtime for a bundle that holds that format, where it is installed; else torch."""
    checkpoint: Literal["best", "last"] = "best"
    """Of a run: the best epoch by the validation images, or the last."""
    white: int | None = None
    """Value of white in the training images, of a run that does not know it."""
    batch_size: int = 64
    """Images at a time."""
    workers: int | None = None
    """Processes that decode; by default one a core, at most 8. 0: none beside this one."""
    on_bad: Literal["error", "skip"] = "error"
    """Whether the exit code says that a file could not be read. Its row is there in any case."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object a file on standard output, and no table."""

    def __call__(self) -> None:
        from resnetlab.deploy.predict import Rank, Settings, default_workers

        settings = Settings(
            top=self.top,
            batch_size=self.batch_size,
            workers=default_workers() if self.workers is None else self.workers,
        )
        if self.json and self.out:
            raise ConfigError("--json and --out exclude each other; --out FILE.jsonl holds the same rows")
        if Rank.of_environment().size > 1 and (self.out is None or "-" in self.sources):
            raise ConfigError("several ranks write a file and cannot share standard input; give --out and no -")
        with self.opened() as sources:
            sources.check()
            found = self.print_rows(sources, settings) if self.out is None else self.write(self.out, sources, settings)
        if found is not None:
            self.tell(*found, sources.junk.total())

    def tell(self, rows: int, bad: int, junk: int) -> None:
        """Say how many files there were. Raises ``DataError`` for bad ones without --on-bad skip."""
        passed = f"; passed over {junk:,} that are no images" if junk else ""
        told = f"{rows:,} files, {bad:,} without an answer{passed}"
        if bad and self.on_bad == "error":
            raise DataError(f"{told}; their rows say why (--on-bad skip ends with 0 all the same)")
        if not self.json:
            show(told + (f"; rows in {self.out}" if self.out else ""))

    @contextmanager
    def opened(self) -> "Iterator[Sources]":
        """The sources; standard input is kept in a file while they are used, for it can be read once."""
        from resnetlab.deploy.predict import Sources

        if "-" not in self.sources:
            yield Sources(given=self.sources)
            return
        with TemporaryFile() as kept:
            shutil.copyfileobj(sys.stdin.buffer, kept)
            yield Sources(given=self.sources, listed=kept)

    def predictor(self) -> "tuple[Predictor, Path]":
        """The network behind its engine, and its folder."""
        from resnetlab.deploy.engines import open_predictor
        from resnetlab.deploy.share import local_folder

        folder = local_folder(self.network)
        return open_predictor(folder, self.engine, checkpoint=self.checkpoint, white=self.white), folder

    def print_rows(self, sources: "Sources", settings: "Settings") -> tuple[int, int]:
        """Print a row for each file; how many there are, and how many without an answer."""
        from resnetlab.deploy.predict import predict_batches
        from resnetlab.deploy.rows import batched, row_values

        predictor, _ = self.predictor()
        count = bad = 0
        table = Table(predictor.classes)
        for rows, _ in predict_batches(predictor, batched(sources, settings.batch_size), settings):
            count, bad = count + len(rows), bad + sum(row.error is not None for row in rows)
            if self.json:
                top = min(settings.top, len(predictor.classes))
                show(*(json.dumps(row_values(row, top)) for row in rows))
            else:
                show(*table.lines(rows))
        return count, bad

    def write(self, out: Path, sources: "Sources", settings: "Settings") -> tuple[int, int] | None:
        """Write the rows into a file; how many there are, and how many without an answer. None on a rank that does not
        lead."""
        from resnetlab.cli.progress import progress_of
        from resnetlab.cli.train import leads
        from resnetlab.deploy.predict import check_out, network_digest, predict_into

        check_out(out)
        predictor, folder = self.predictor()
        network = network_digest(folder, self.checkpoint)
        with ExitStack() as stack:
            total = sum(1 for _ in sources) if leads() else 0
            bar = stack.enter_context(progress_of("predicting")) if leads() else None

            def on_progress(done: int) -> None:
                if bar is not None:
                    bar(min(done, total), total)

            try:
                outcome = predict_into(out, predictor, network, sources, settings, on_progress)
            except KeyboardInterrupt:
                raise StoppedError("interrupted; the same command resumes", signal.SIGINT) from None
        return (outcome.rows, outcome.bad) if outcome else None


class Table:
    """Rows in aligned columns, as wide as the widest text so far: nothing is held."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.answer = max(len(printable(name)) for name in classes)
        self.path = 0

    def lines(self, rows: "list[Row]") -> list[str]:
        """The lines of a batch: path, answer, probability, then the next ones; or why there is none."""
        paths = [printable(row.path) for row in rows]
        self.path = max(self.path, *map(len, paths))
        return [f"{path:{self.path}}  {self._told(row)}" for path, row in zip(paths, rows, strict=True)]

    def _told(self, row: "Row") -> str:
        if row.error is not None:
            return f"– {row.error}"
        pairs = list(zip(row.prediction.classes, row.prediction.probabilities, strict=True))
        first = f"{printable(pairs[0][0]):{self.answer}}  {pairs[0][1]:6.1%}"
        return "  ".join([first, ", ".join(f"{printable(name)} {share:.1%}" for name, share in pairs[1:])]).rstrip()
