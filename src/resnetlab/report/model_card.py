"""The model card of a run: its ``README.md``, with the metadata that the Hugging Face Hub reads."""

import re
from collections.abc import Mapping
from typing import Any

from resnetlab.core.config import parse_yaml
from resnetlab.core.errors import DataError, printable
from resnetlab.records.run import ClassificationReport, RunRecord
from resnetlab.report.page import flatten
from resnetlab.report.run.tables import SPLITS, confused_pairs, duration, key_figures, run_verdict

CARD = "README.md"
NAMED = 50
"""Classes up to which their names are listed."""
FIXED_BY_DATA = {"num_classes", "in_chans", "image_size"}


def run_card(record: RunRecord, report: ClassificationReport | None, command: str) -> str:
    """The card in Markdown: what the network is, its data, training and result with n and seed, how it is loaded, and
    what it must not be taken for. ``command`` reproduces the run.

    Every name from outside is escaped: it can end no line of the metadata and make no HTML, link or table.
    """
    sections = [
        front_matter(record),
        f"# {escape(record.model)} trained on {escape(_source(record))}\n",
        *_lines(run_verdict(record)),
        f"\n{record.parameters:,} parameters, {record.multiply_adds:,} multiply-adds for one image.\n",
        "## How to load it\n",
        f"```python\n{loading_code(record)}\n```\n",
        _preparation(record),
        "## Result\n",
        *_lines(f"{words}: {value}" for value, words in key_figures(record, report)),
        *_confusions(report),
        "\n## Data\n",
        *_data_lines(record, report),
        "\n## Training\n",
        f"One run with seed {record.recipe.get('seed', 'unknown')}, {duration(record.seconds)}:\n",
        fenced(printable(command)),
        *_settings(record.recipe),
        "\n## Versions and hardware\n",
        *_settings(record.environment),
        "\n## Limits\n",
        *(f"- {line}" for line in limits(record)),
    ]
    return "\n".join(sections) + "\n"


def front_matter(record: RunRecord) -> str:
    """The metadata between ``---`` lines, as YAML. A run that did not finish has no result in it."""
    import yaml

    metadata: dict[str, Any] = {
        "library_name": "resnetlab",
        "pipeline_tag": "image-classification",
        "tags": ["resnet"],
    }
    if record.final:
        source, metrics, split = _source(record), record.final.reported, record.final.reported_split
        result = {
            "task": {"type": "image-classification", "name": "Image Classification"},
            "dataset": {"type": source, "name": source, "split": split},
            "metrics": [{"type": "accuracy", "name": f"{split.capitalize()} accuracy", "value": 1 - metrics.error}],
        }
        metadata["model-index"] = [{"name": record.model, "results": [result]}]
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False, width=10**6)}---"


def loading_code(record: RunRecord) -> str:
    """Python that builds this network and loads its weights from the run's folder."""
    options = record.recipe.get("options")
    settings: dict[str, Any] = {}
    shape, classes = record.data.get("shape"), record.data.get("classes")
    if isinstance(shape, list) and isinstance(classes, list):
        settings = {"num_classes": len(classes), "in_chans": shape[0], "image_size": shape[1]}
    if isinstance(options, Mapping):
        settings |= {key: _value(text) for key, text in options.items() if key not in FIXED_BY_DATA}
    shortcut = record.recipe.get("shortcut", "default")
    if shortcut != "default":
        settings["shortcut"] = None if shortcut == "none" else shortcut
    # A key is written as text, for it comes from a file and need not be an identifier.
    words = "".join(f"    {key!r}: {value!r},\n" for key, value in settings.items())
    return (
        "from resnetlab import create_model, load_weights\n\n"
        f"settings = {{\n{words}}}\n"
        f"model = create_model({record.model!r}, **settings)\n"
        'load_weights(model, "RUN/last")  # RUN is the folder of this run\n'
        "model.eval()"
    )


def _value(text: str) -> Any:
    """The YAML value that an option is; in a damaged record it need not be one."""
    try:
        return parse_yaml(text, "option")
    except DataError:
        return text


def limits(record: RunRecord) -> list[str]:
    """What the figures cannot tell, a sentence each."""
    split = record.final.reported_split if record.final else "test"
    lines = [
        "One run with one seed: it says nothing about the variation between seeds.",
        f"The figures hold for images like those of the {split} split, preprocessed in the same way.",
    ]
    if record.final and record.chosen_by == split:
        lines.append(f"The weights in `best/` were chosen on the {split} images, so their figure is optimistic.")
    if record.data.get("encoding") in ("jpeg", "mixed"):
        lines.append("Images were decoded from JPEG: another decoder gives slightly other pixels, and so figures.")
    if record.status == "diverged":
        lines.insert(0, "This run diverged: do not use its weights.")
    return lines


def escape(text: object) -> str:
    """A text from outside as one line of Markdown that shows it as it is."""
    line = printable(" ".join(str(text).split()))
    return re.sub(r"([\\`*_\[\]<>#!|~$&@^]|:(?=//)|(?<=www)\.)", r"\\\1", line)


def fenced(text: str) -> str:
    """A block of code that ``text`` cannot end: its fence is longer than any run of backticks within."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{text}\n{fence}\n"


def _lines(texts: Any) -> list[str]:
    return [f"- {escape(text)}" for text in texts]


def _settings(settings: Mapping[str, Any]) -> list[str]:
    return [f"- {escape(name)}: {escape(text)}" for name, text in flatten(dict(settings)).items()]


def _source(record: RunRecord) -> str:
    return str(record.data.get("source", "unknown data"))


def _preparation(record: RunRecord) -> str:
    # Records before format 2 say sd.
    mean, std = record.data.get("mean"), record.data.get("std", record.data.get("sd"))
    if not isinstance(mean, list) or not isinstance(std, list):
        return ""
    return f"Images are float32 `(N, C, H, W)`, standardised as `(pixels - mean) / std`: mean {mean}, std {std}.\n"


def _data_lines(record: RunRecord, report: ClassificationReport | None) -> list[str]:
    encodings = {"lossless": "lossless", "jpeg": "JPEG, lossy", "mixed": "some lossless, some JPEG"}
    data = record.data
    names = report.classes if report else data.get("classes")
    lines = [f"source: {_source(record)}"]
    lines += [f"{word} images: {data[name]:,}" for name, word in SPLITS.items() if isinstance(data.get(name), int)]
    if "shape" in data:
        lines.append(f"shape (C, H, W): {data['shape']}")
    if data.get("encoding") in encodings:
        lines.append(f"encoding: {encodings[data['encoding']]}")
    if isinstance(names, list):
        shown = ", ".join(map(str, names[:NAMED])) + (", …" if len(names) > NAMED else "")
        lines.append(f"{len(names)} classes: {shown}")
    if "sha256" in data:
        lines.append(f"SHA-256 over images and labels: {data['sha256']}")
    return _lines(lines)


def _confusions(report: ClassificationReport | None) -> list[str]:
    if report is None or not (pairs := confused_pairs(report).rows):
        return []
    heads = confused_pairs(report).heads
    rows = [" | ".join(escape(text) for text in row) for row in (heads, *pairs[:5])]
    return ["", f"| {rows[0]} |", "|---|---|---|---|", *(f"| {row} |" for row in rows[1:])]
