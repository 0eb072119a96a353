"""From the words of a command to its recipe: the values of a file, or of a run, changed by flags; and its help."""

import ast
import inspect
import os
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin, get_type_hints

import tyro

from resnetlab.cli.habits import answer_habits
from resnetlab.cli.tables import show
from resnetlab.core.errors import ConfigError
from resnetlab.data.config import SOURCES
from resnetlab.train.folder import RECIPE
from resnetlab.train.recipe import Recipe, check_best_by, load_recipe, read_recipe, shipped_name, shipped_recipes

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class WithRecipe:
    """The flags of a command that takes a recipe."""

    file: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[RECIPE]")] = None
    """Recipe: a YAML file of settings, or the name of a shipped one, such as digits/resnet20; it comes first, and flags
    override it."""
    recipe: Annotated[Recipe, tyro.conf.OmitArgPrefixes]
    """What is trained."""
    reindex: tyro.conf.FlagCreatePairsOff[bool] = False
    """Open every file of a folder of images again, whatever its index says."""

    @classmethod
    def read(cls, words: list[str], prog: str, base: Recipe | None = None) -> Self:
        """The command that the words give, or its help: flags change ``base``, by default that of ``base_recipe``. tyro
        answers wrong words with exit code 2.

        Raises ``DataError`` for a file that is missing, ``ConfigError`` for what is wrong in it or in a flag.
        """
        if {"-h", "--help"} & set(words):
            show(*recipe_help(cls, prog).splitlines())
            raise SystemExit(0)
        answer_habits(words, [f"--{flag.name.replace('_', '-')}" for flag in flags_of(cls)], prog)
        base = base or base_recipe(words, prog)
        for before, word in pairwise(words):
            if before == "--best-by":
                check_best_by(word)
        # A dict that is not empty would become flags of its own, --norm instead of --options norm.
        command = tyro.cli(cls, default=cls(recipe=replace(base, options={})), args=words, prog=prog)
        check_file(command.file, words, prog)
        command.forget()
        return replace(command, recipe=replace(command.recipe, options=base.options | command.recipe.options))

    def forget(self) -> None:
        """With --reindex remove the index of the images; of several ranks the leading one does."""
        if self.reindex and os.environ.get("RANK", "0") == "0":
            from resnetlab.data.sources import forget_index

            forget_index(self.recipe.data)


@dataclass(frozen=True, kw_only=True)
class OpenRecipe(WithRecipe):
    """The flags of a command that takes a recipe, or chooses what is left open of it by the data."""

    choose: bool = True
    """For images in files, without a RECIPE: choose what no flag says, such as the model, by the data; the run says
    what, and why. Of arrays, evaluate_train alone. Off: the fixed defaults."""
    given: Annotated[frozenset[str], tyro.conf.Fixed, tyro.conf.Suppress] = frozenset()
    auto_lr: Annotated[bool, tyro.conf.Fixed, tyro.conf.Suppress] = False

    @classmethod
    def read(cls, words: list[str], prog: str, base: Recipe | None = None) -> Self:
        """As ``WithRecipe.read``; ``--lr auto`` is taken out, and a run to resume has its own recipe."""
        kept = [word for number, word in enumerate(words) if not _is_auto(words, number)]
        command = super().read(kept, prog, base)
        run = command.resumed()
        if run is not None:
            command = replace(super().read(kept, prog, read_recipe(run / RECIPE)), choose=False)
        return replace(command, given=given_settings(words), auto_lr=len(kept) < len(words) and run is None)

    def resumed(self) -> Path | None:
        """The folder of a run that is resumed with what was chosen when it began."""
        return None

    def settled(self) -> tuple[Recipe, list[str]]:
        """The recipe with what was left open chosen, and a line for each choice."""
        from resnetlab.train.defaults import choose, choose_evaluation, hint, look, suits

        if self.file is not None or not self.choose:
            return self.recipe, []
        if not suits(self.recipe.data):
            return choose_evaluation(self.recipe, self.given)
        facts = look(self.recipe, self.given)
        recipe, lines = choose(facts, self.recipe, self.given)
        return recipe, [*lines, *hint(facts)]


def _is_auto(words: list[str], number: int) -> bool:
    """Whether the word is one of ``--lr auto`` or ``--lr=auto``."""
    here, behind = words[max(0, number - 1) : number + 1], words[number : number + 2]
    return words[number] == "--lr=auto" or ["--lr", "auto"] in (here, behind)


def given_settings(words: list[str]) -> frozenset[str]:
    """The names of the settings that the words give: ``lr``, ``flip`` for ``--no-flip``; of options their own."""
    names = {word.partition("=")[0][2:].replace("-", "_") for word in words if word.startswith("--")}
    options = words[words.index("--options") + 1 :: 2] if "--options" in words else []
    return frozenset(names | {name.removeprefix("no_") for name in names} | set(options))


def base_recipe(words: list[str], prog: str) -> Recipe:
    """What the flags change: the recipe of the file that comes first, of the run that is resumed, or the default."""
    if words and not words[0].startswith("-"):
        return load_recipe(Path(words[0]))
    for before, word in pairwise(words):
        if word.endswith(SUFFIXES) and not before.startswith("--"):
            raise late_file(word, prog)
    run = resumed_run(words)
    return Recipe() if run is None else read_recipe(run / RECIPE)


def check_file(file: Path | None, words: list[str], prog: str) -> None:
    """Refuse a recipe that comes behind flags; where a file has the name of a shipped recipe, say that it is taken."""
    if file is None:
        return
    if Path(words[0]) != file:
        raise late_file(str(file), prog)
    name = shipped_name(file)
    if name is not None and file.is_file() and not file.samefile(shipped_recipes()[name]):
        show(f"{file} is read, a file here; the shipped recipe {name} is another", errors=True)


def late_file(file: str, prog: str) -> ConfigError:
    """The error for a file that comes behind flags, when it is too late for them to change it."""
    return ConfigError(f"{file} comes too late: name the recipe first, {prog} {file} …, and the flags behind it")


def resumed_run(words: list[str]) -> Path | None:
    """The folder in ``--resume FOLDER``; None where there is none."""
    values = [word.removeprefix("--resume=") for word in words if word.startswith("--resume=")]
    values += [word for before, word in pairwise(words) if before == "--resume"]
    return Path(values[-1]) if values and values[-1] not in ("never", "auto") else None


WIDTH, COLUMN = 110, 30
FIRST = (
    *("steps", "lowest", "highest"),
    *(
        "data",
        "model",
        "image_size",
        "time",
        "epochs",
        "batch_size",
        "lr",
        "schedule",
        "flip",
        "weights",
        "validation",
        "seed",
    ),
    *("device", "out", "resume"),
)
GROUPS = {
    "Run and output": (
        *("log", "quiet", "json", "print_config", "max_steps"),
        *("save_every", "save_every_seconds", "keep_top", "evaluate_train", "trace"),
    ),
    "Network": ("shortcut", "options", "freeze", "freeze_epochs"),
    "Data": (
        *("choose", "split_seed", "check", "reindex", "on_bad", "workers", "compact_labels", "sampler"),
        "overfit_batches",
    ),
    "Validation": ("best_by", "early_stop"),
    "Optimizer": ("optimizer", "head_lr", "momentum", "nesterov", "weight_decay", "decay_all", "clip_norm", "ema"),
    "Schedule": (*("warmup_epochs", "warmup_steps", "warmup_until_error", "milestones", "milestone_steps", "gamma"),),
    "Speed and memory": ("precision", "tune", "channels_last", "compile", "accumulate", "checkpoint_blocks", "sync_bn"),
}
REST = "Augmentation and targets"
EXAMPLES = (
    "{prog} digits/resnet20 --out runs/digits20",
    "{prog} digits/resnet20 --seed 1 --lr 0.1 --out runs/other",
    "{prog} --model resnet18 --data photos/ --weights resnet18.tv_in1k --epochs 10 --out runs/photos",
)
EXIT_CODES = (
    "0 done · 1 the run diverged · 2 wrong settings · 3 data · 4 checkpoint or weights · 5 disk or a missing extra · "
    "130 Ctrl-C, 143 SIGTERM (both saved)"
)
WORDS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True)
class Flag:
    """One flag: its name in the settings, the words that stand in a command, and what it does."""

    name: str
    words: str
    text: str


def recipe_help(command: type, prog: str) -> str:
    """The help of a command that takes a recipe, from the docstrings of its fields; ``prog`` is its name."""
    flags = {flag.name: flag for flag in flags_of(command)}
    parts = [f"usage: {prog} [RECIPE] [FLAGS]", inspect.cleandoc(command.__doc__ or "")]
    parts.append(_section("The flags that matter most", [flags.pop(name) for name in FIRST if name in flags]))
    sources = [Flag(name, name, text) for name, text in SOURCES.items()]
    parts.append(_section("What --data takes", sources))
    parts.append(_section("Examples", [Flag("", line.format(prog=prog), "") for line in EXAMPLES]))
    parts.append("Exit codes\n" + textwrap.fill(EXIT_CODES, WIDTH, initial_indent="  ", subsequent_indent="  "))
    for title, names in GROUPS.items():
        parts.append(_section(title, [flags.pop(name) for name in names if name in flags]))
    parts.append(_section(REST, list(flags.values())))
    return "\n\n".join(part for part in parts if part)


def flags_of(settings: type) -> Iterator[Flag]:
    """The flags of a dataclass of settings, nested ones too, in the order of its fields."""
    texts, types = field_texts(settings), get_type_hints(settings, include_extras=True)
    for one in fields(settings):
        # Of the commands' own fields some are annotated for tyro; their flags have no --no- form.
        annotated = get_origin(types[one.name]) is Annotated
        kind = get_args(types[one.name])[0] if annotated else types[one.name]
        if is_dataclass(kind) and isinstance(kind, type):
            yield from flags_of(kind)
        elif one.name in texts and one.name != "file":
            yield Flag(one.name, _words(one.name, kind, pair=not annotated), texts[one.name] + _default(one))


def field_texts(settings: type) -> dict[str, str]:
    """What stands below each field of a dataclass, those of its bases too."""
    found: dict[str, str] = {}
    for base in reversed(settings.__mro__[:-1]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for line, text in pairwise(body.body):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(text, ast.Expr):
                found[line.target.id] = " ".join(ast.literal_eval(text.value).split())
    return found


def _words(name: str, kind: Any, pair: bool) -> str:
    flag = f"--{name.replace('_', '-')}"
    if kind is bool:
        return f"{flag}, --no-{flag[2:]}" if pair else flag
    word = _word(kind)
    return f"{flag} {word}" if word else flag


def _word(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return "|".join(_word(part) for part in inner if part is not NoneType)
    if origin is Literal:
        return "|".join(map(str, inner))
    if origin is tuple:
        return f"{_word(inner[0])} …"
    return "NAME VALUE …" if origin is dict else WORDS.get(kind, "")


def _default(one: Any) -> str:
    value = one.default
    if value in (None, MISSING, ()) or isinstance(value, Mapping):
        return ""
    word = {True: "on", False: "off"}[value] if isinstance(value, bool) else value
    return f" (default: {word})"


def _section(title: str, flags: list[Flag]) -> str:
    lines = [title]
    for flag in flags:
        text = textwrap.wrap(flag.text, WIDTH - COLUMN - 2)
        # A flag that is longer than its column has a line of its own.
        if len(flag.words) + 2 > COLUMN or not text:
            lines.append(f"  {flag.words}")
        else:
            lines.append(f"  {flag.words:{COLUMN}}{text.pop(0)}")
        lines += [f"  {'':{COLUMN}}{line}" for line in text]
    return "\n".join(lines) if flags else ""
