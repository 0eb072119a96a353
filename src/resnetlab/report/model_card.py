"""The model card of a run or a bundle: its ``README.md``, with the metadata that the Hugging Face Hub reads."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from resnetlab.core.config import parse_yaml
from resnetlab.core.errors import DataError, printable
from resnetlab.core.stats import wilson_share
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
    if not record.final:
        return _metadata(record.model, "resnetlab")
    split, accuracy = record.final.reported_split, 1 - record.final.reported.error
    return _metadata(record.model, "resnetlab", _source(record), {"split": split, "accuracy": accuracy})


def _metadata(model: str, library: str, source: str = "", results: Mapping[str, Any] | None = None) -> str:
    import yaml

    metadata: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": "image-classification",
        "tags": ["resnet"],
    }
    if results:
        split = str(results["split"])
        name, value = f"{split.capitalize()} accuracy", results["accuracy"]
        result = {
            "task": {"type": "image-classification", "name": "Image Classification"},
            "dataset": {"type": source, "name": source, "split": split},
            "metrics": [{"type": "accuracy", "name": name, "value": value}],
        }
        metadata["model-index"] = [{"name": model, "results": [result]}]
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False, width=10**6)}---"


def bundle_card(
    *,
    name: str,
    model: str,
    classes: Sequence[str],
    preprocessing: Mapping[str, Any],
    results: Mapping[str, Any],
    source: str,
    note: str,
    formats: Sequence[str],
    table: Sequence[Sequence[str]],
    environment: Mapping[str, Any],
) -> str:
    """The card of a bundle in Markdown: what the network is and answers, its result with n and interval, and how each
    library that can loads it. ``table`` compares the exported ``formats``, its heads first."""
    shown = ", ".join(map(escape, classes[:NAMED])) + (", …" if len(classes) > NAMED else "")
    side, channels, white = (preprocessing[key] for key in ("side", "channels", "white"))
    grey = "" if channels == 3 else ", in grey" if channels == 1 else f", {channels} channels"
    rows = [f"| {' | '.join(map(escape, row))} |" for row in table]
    sections = [
        _metadata(model, "timm" if "timm" in formats else "resnetlab", source, results),
        f"# {escape(name)}\n",
        f"{escape(model)}{f', trained on {escape(source)}' if source else ''}: an image classifier of {len(classes)} "
        f"classes: {shown}.{f' {escape(note)}' if note else ''}\n",
        *_result_lines(results),
        "## How to load it\n",
        "FOLDER is the folder of this file.\n",
        *(LOADING[way] for way in LOADING if way in ("resnetlab", *formats)),
        "## Preprocessing\n",
        f"The short side of an image is resized to {side} pixels (bilinear, with a filter against aliasing), after its "
        f"EXIF orientation is applied, and the middle {side}×{side} are cut out{grey}. Values v from 0 to 255 become "
        f"(v · {white} / 255 - mean) / std: mean {preprocessing['mean']}, std {preprocessing['std']}. The exported "
        "formats take uint8 `pixels` of shape `(N, side, side, channels)` and do that themselves.\n",
        "## Formats\n",
        "Each one was compared with the trained network in float32; differences are relative to its largest logit. "
        f"CPU time of this machine: {escape(environment['processor'])}, {environment['threads']} threads. The images "
        "in `golden/` with the logits in `golden.json` compare again, anywhere: `resnetlab verify FOLDER`.\n",
        rows[0],
        "|" + "---|" * len(table[0]),
        *rows[1:],
        "\n## Limits\n",
        "- One run with one seed: it says nothing about the variation between seeds.",
        "- The figures hold for images like those it was tested on, preprocessed in the same way.",
    ]
    return "\n".join(sections) + "\n"


LOADING = {
    "resnetlab": (
        '```python\nimport resnetlab\n\nnet = resnetlab.load("FOLDER")\nprint(net.predict("image.jpg"))\n```\n'
    ),
    "timm": (
        "With timm, or with transformers:\n\n```python\nimport timm\n\n"
        'net = timm.create_model("local-dir:FOLDER", pretrained=True).eval()\n```\n\n'
        "```python\nfrom transformers import pipeline\n\n"
        'print(pipeline("image-classification", "FOLDER")("image.jpg"))\n```\n'
    ),
    "onnx": (
        "With ONNX Runtime:\n\n```python\nimport onnxruntime\n\n"
        'session = onnxruntime.InferenceSession("FOLDER/onnx/model.onnx")\n'
        '(logits,) = session.run(["logits"], {"pixels": pixels})  # uint8, (N, side, side, channels)\n```\n'
    ),
    "pt2": (
        "With torch alone:\n\n```python\nimport torch\n\n"
        'net = torch.export.load("FOLDER/torch/model.pt2").module()\n```\n'
    ),
    "web": "In a browser, without a server: open `FOLDER/web/index.html`.\n",
}
"""How each library loads a bundle that has its format."""


def _result_lines(results: Mapping[str, Any]) -> list[str]:
    """Accuracy and loss with n and interval; nothing where there is no result."""
    if not results:
        return []
    n, accuracy = results["n"], results["accuracy"]
    share = wilson_share(round(accuracy * n), n)
    return [
        "## Result\n",
        f"On {n:,} {escape(results['split'])} images: accuracy {100 * accuracy:.2f} % (95 % interval, Wilson: "
        f"{100 * share.low:.2f} to {100 * share.high:.2f} %), cross-entropy {results['loss']:.4f}.\n",
    ]


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
