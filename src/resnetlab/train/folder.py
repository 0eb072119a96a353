"""The folder of a run: whose it is, what stands in it from the first step on, and whether that was edited since."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from resnetlab.core.errors import CheckpointError, ConfigError, DataError, printable, require_choice
from resnetlab.core.files import (
    atomic_write,
    digest,
    folder_exists,
    read_folder,
    read_json,
    require_vacant,
    write_json,
)
from resnetlab.core.lock import folder_lock
from resnetlab.core.serialize import as_plain
from resnetlab.train.recipe import Recipe, changed_settings, differences, read_recipe, recipe_data, write_recipe

if TYPE_CHECKING:
    from resnetlab.data.config import Check
    from resnetlab.data.dataset import ImageData

RECIPE, RECORD, DATA, CLASSES = "recipe.yaml", "record.json", "data.json", "classes.json"
MANIFEST = "run.json"
"""Sizes and sums of ``BEGUN``, as they were when the run began."""
BEGUN = (RECIPE, DATA, CLASSES)
BEGAN_IN = "began_in"
"""In ``DATA``: the working folder of the command that began the run."""
LEVELS = 4
"""Folders around a run in which its data are looked for."""


@dataclass(frozen=True)
class Claim:
    """What is asked of the folder ``out``: to hold the run of ``recipe``, new or to resume."""

    recipe: Recipe
    out: Path
    resume: bool = False
    accept_changes: bool = False

    def check(self) -> bool:
        """Whether ``out`` holds this run; if not, it is vacant, or holds a start that was killed before its first
        checkpoint.

        Raises ``ConfigError`` if ``out`` holds anything else, this run without ``resume``, or with other settings than
        it began with and without ``accept_changes``.
        """
        if not require_vacant(self.out, "run", RECIPE) or not is_begun(self.out):
            return False
        if not self.resume:
            raise ConfigError(
                f"{self.out} already holds a run; resume it with --resume auto (resume=True), or choose another folder"
            )
        changed = self._changed()
        if changed and (self.out / RECORD).is_file():
            raise ConfigError(
                f"{self.out} holds a run with other settings, which has ended: {', '.join(changed)}; choose another "
                f"folder, and start from its weights with --weights {self.out}"
            )
        if changed and not self.accept_changes:
            raise refusal(
                changed,
                f"{self.out} holds a run with other settings: {', '.join(changed)}; give the settings that it began "
                "with, choose another folder, or resume with the new ones, which its record will say: --accept-changes "
                "(accept_changes=True)",
            )
        return True

    def _changed(self) -> list[str]:
        begun, now = begun_settings(self.out), as_plain(self.recipe)
        if "recipe" in begun:
            changed = changed_settings(begun, {"recipe": now})
        else:
            changed = [] if self.accept_changes else differences(as_plain(read_recipe(self.out / RECIPE)), now)
        return changed or edited_files(self.out, begun)

    def check_data(self, data: "ImageData") -> None:
        """Raise ``DataError`` unless the data are those of the run in ``out``, if it holds one."""
        if is_begun(self.out) and (self.out / DATA).is_file() and not self.accept_changes:
            check_data(data, self.out)

    def begin(self, data: "ImageData") -> None:
        """Write what the run is of: recipe, data and classes, and the manifest that vouches for them."""
        write_recipe(self.out / RECIPE, self.recipe)
        if self.accept_changes or not is_begun(self.out) or not (self.out / DATA).is_file():
            note_data(data, self.out)
        write_json(self.out / CLASSES, list(data.classes))
        write_json(self.out / MANIFEST, {"files": {name: _entry(self.out / name) for name in BEGUN}})

    def undo(self) -> None:
        """Remove what ``begin`` wrote; the manifest goes first, for what it vouches for is about to go."""
        for name in (MANIFEST, CLASSES, DATA, RECIPE):
            (self.out / name).unlink(missing_ok=True)


def is_begun(folder: Path) -> bool:
    """Whether ``folder`` holds a checkpoint, or the record of a run that has ended."""
    from resnetlab.train.checkpoint_manager import LAST

    return folder_exists(folder / LAST) or (folder / RECORD).is_file()


def _entry(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": digest(data)}


def begun_settings(folder: Path) -> dict[str, Any]:
    """The settings with which the last checkpoint of the run was made; empty without one, or where it holds none."""
    from resnetlab.train.checkpoint import read_settings
    from resnetlab.train.checkpoint_manager import LAST

    return read_settings(folder / LAST).values if folder_exists(folder / LAST) else {}


def edited_files(folder: Path, begun: Mapping[str, Any]) -> list[str]:
    """Which of ``BEGUN`` are not what the run wrote, a phrase each; none for a run that wrote no manifest.

    A recipe with the settings of ``begun``, those of the last checkpoint, may be written otherwise.
    """
    if not (folder / MANIFEST).is_file():
        return []
    plain = read_json(folder / MANIFEST)
    entries = plain.get("files") if isinstance(plain, dict) else None
    if not isinstance(entries, dict):
        raise DataError(f"{folder / MANIFEST} is damaged: it names no files; put it back, or delete it")
    found = []
    for name in BEGUN:
        if (folder / name).is_file() and _entry(folder / name) == entries.get(name):
            continue
        if name == RECIPE and "recipe" in begun:
            now = as_plain(read_recipe(folder / RECIPE))
            found += [f"{RECIPE}: {line}" for line in changed_settings(begun, {"recipe": now})]
        else:
            found.append(f"{name} has changed since the run wrote it")
    return found


def refusal(changed: list[str], text: str) -> ConfigError | DataError:
    """The error for a run of which that has changed: of the data, where nothing else has."""
    files = (f"{DATA} ", f"{CLASSES} ")
    return DataError(text) if all(line.startswith(files) for line in changed) else ConfigError(text)


def moved_data(recipe: Recipe, out: Path) -> tuple[Recipe, str | None]:
    """The recipe as the unfinished run in ``out`` began with it, and where its data are now, where ``recipe`` names
    another path of the same kind; else the recipe as it is. That they are the same data, their SHA-256 decides."""
    if not (out / RECIPE).is_file() or (out / RECORD).is_file():
        return recipe, None
    before = read_recipe(out / RECIPE).data
    return (replace(recipe, data=before), recipe.data) if may_have_moved(before, recipe.data) else (recipe, None)


def may_have_moved(before: str, now: str) -> bool:
    """Whether ``now`` differs from the source ``before`` in nothing but its path."""
    from resnetlab.data.sources import split_source

    (head, where, tail), (old_head, old, old_tail) = split_source(now), split_source(before)
    return before != now and bool(where and old) and (head or "folder:", tail) == (old_head or "folder:", old_tail)


def run_data(
    folder: Path, recipe: Recipe, place: str | None = None, on_progress: Callable[[int, int], None] | None = None
) -> "ImageData":
    """The data of the run in ``folder``, from ``place`` or from where they are found (``data_places``).

    Of several places the first whose images have the SHA-256 of the run is taken; the last is not compared. Raises
    ``DataError`` where they are nowhere, or cannot be read.
    """
    places = data_places(folder, recipe.data) if place is None else [place]
    recipe = replace(recipe, decode=replace(recipe.decode, check=begun_check(folder, recipe.decode.check)))
    weights = recipe.weights if names_hub(folder, recipe) else None
    for source in places:
        # A file of weights says nothing of the data, and may be gone.
        data = recipe_data(replace(recipe, data=source, weights=weights), on_progress)
        if source != places[-1]:
            try:
                check_data(data, folder)
            except DataError:
                continue
        break
    # A record says the same, wherever the data were read.
    return replace(data, source=data.source.replace(source, recipe.data)) if place is None else data


def begun_check(folder: Path, check: "Check") -> "Check":
    """How the images of the run in ``folder`` were looked at when it began, where the recipe leaves that open: how long
    it took then decided it, and it decides their SHA-256."""
    if check != "auto" or not (folder / DATA).is_file():
        return check
    noted = read_json(folder / DATA)
    begun = noted.get("check", "full") if isinstance(noted, dict) else "full"
    require_choice(f"check in {folder / DATA}", begun, ("full", "head", "none"))
    return cast("Check", begun)


def data_places(folder: Path, source: str) -> list[str]:
    """``source``, of the run in ``folder``, with each path under which something lies: where the run began, in the
    working folder, beside the run and around it, and by its name alone beside the run.

    Raises ``DataError`` naming all places where there is nothing.
    """
    from resnetlab.data.sources import split_source

    head, where, tail = split_source(source)
    if not where:
        return [source]
    paths = _paths(folder, where)
    found = [path for path in paths if path.exists()]
    if not found:
        raise DataError(
            f"the data of {folder}, {source}, are not there; looked for {', '.join(map(printable, paths))}. "
            f"Say where they are with --data {head}PATH{tail}"
        )
    # As the user wrote it, where that is what it means here.
    return [source if path == Path.cwd() / where else f"{head}{path}{tail}" for path in found]


def _paths(folder: Path, where: str) -> list[Path]:
    """What the path ``where``, in the recipe of the run in ``folder``, may mean now, likeliest first."""
    beside = folder.resolve()
    around = [beside, *beside.parents[:LEVELS]]
    bases = [*_began_in(folder), Path.cwd(), *around]
    return list(dict.fromkeys([*(base / where for base in bases), *(base / Path(where).name for base in around[:2])]))


def _began_in(folder: Path) -> list[Path]:
    """The working folders of the commands that began the run in ``folder`` and the study that it is of, if noted."""
    files = [place / DATA for place in (folder, folder.resolve().parent.parent) if (place / DATA).is_file()]
    noted = [plain.get(BEGAN_IN) for plain in map(read_json, files) if isinstance(plain, dict)]
    return [Path(began) for began in noted if isinstance(began, str)]


def names_hub(folder: Path, recipe: Recipe) -> bool:
    """Whether the weights that the run in ``folder`` started from are the Hub's, and no file of such a name."""
    from resnetlab.models.pretrained import is_tag

    name = recipe.weights
    return name is not None and is_tag(name) and not any((base / name).exists() for base in _began_in(folder))


def begun_weights(folder: Path, recipe: Recipe) -> Recipe:
    """The recipe of the run in ``folder``, or in a study, with the path of its weights where they are now.

    Raises ``CheckpointError`` naming all places where they are nowhere.
    """
    if recipe.weights is None or names_hub(folder, recipe):
        return recipe
    paths = _paths(folder, recipe.weights)
    found = next((path for path in paths if path.exists()), None)
    if found is None:
        raise CheckpointError(
            f"the weights that {folder} started from, {recipe.weights}, are not there; looked for "
            f"{', '.join(map(printable, paths))}. Put them back in one of these places"
        )
    return recipe if found == Path.cwd() / recipe.weights else replace(recipe, weights=str(found))


def note_data(data: "ImageData", folder: Path) -> None:
    """Write what the data are, and the folder from which their path counts."""
    write_json(folder / DATA, data.fingerprint | {BEGAN_IN: str(Path.cwd())})


def has_ended(claim: Claim) -> bool:
    """Whether the folder holds this very run with its record; the leading rank looks for all."""
    from resnetlab.train.distributed import share_bytes, world

    ended = world().leads and claim.check() and (claim.out / RECORD).is_file()
    return share_bytes(b"yes" if ended else b"no") == b"yes"


@contextmanager
def claimed(claim: Claim, data: "ImageData", leads: bool, locked: bool) -> Iterator[bool]:
    """Lock the folder, unless the caller has; True where another process has done this run meanwhile.

    What a run wrote that failed before its first checkpoint goes, so that the folder is free for the next attempt; and
    what one wrote that resumed with changes and failed before its next one is put back as it was.
    """
    from resnetlab.train.distributed import share_bytes

    if not leads:
        yield share_bytes(None) == b"yes"
        return
    with nullcontext() if locked else folder_lock(claim.out):
        held = claim.check()
        ended = held and (claim.out / RECORD).is_file()
        if not ended:
            claim.check_data(data)
        share_bytes(b"yes" if ended else b"no")
        begun = {name: (claim.out / name).read_bytes() for name in (*BEGUN, MANIFEST) if (claim.out / name).is_file()}
        state = _last_state(claim.out)
        try:
            yield ended
        except BaseException:
            if not is_begun(claim.out) or (claim.accept_changes and _last_state(claim.out) == state):
                claim.undo()
                for name, content in begun.items() if held else ():
                    atomic_write(claim.out / name, content)
            raise


def _last_state(folder: Path) -> dict[str, bytes]:
    """What the last checkpoint says of where the run stands; empty without one."""
    from resnetlab.train.checkpoint import STATE
    from resnetlab.train.checkpoint_manager import LAST

    return read_folder(folder / LAST, fall_back=True, only=[STATE])[1] if folder_exists(folder / LAST) else {}


def claim_data(data: "ImageData", folder: Path) -> None:
    """Write into ``folder`` what the data are, or check that they are what was written when the run began."""
    if (folder / DATA).is_file():
        check_data(data, folder)
    else:
        note_data(data, folder)


def check_data(data: "ImageData", folder: Path) -> None:
    """Raise ``DataError`` unless the data are, to the bit, those that the run in ``folder`` began with."""
    noted = read_json(folder / DATA)
    begun = begun_settings(folder).get("data", data.fingerprint["sha256"])
    if not isinstance(noted, dict) or not noted.get("sha256") == begun == data.fingerprint["sha256"]:
        raise DataError(
            f"{data.source} has changed since {folder} was begun: its SHA-256 is another; "
            "put the data back, name their place with --data, or choose another folder"
        )
