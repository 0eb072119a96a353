"""Bundles to and from the Hugging Face Hub (extra ``hub``); ``HF_ENDPOINT`` and ``HF_HOME`` name hub and cache."""

from pathlib import Path
from typing import Any

from resnetlab.core.errors import CheckpointError, first_line, load_extra
from resnetlab.core.files import atomic_write, new_folder, require_vacant
from resnetlab.deploy.bundle import BUNDLE, Bundle, checked, read_bundle

MAIN, HUB = "main", "hub:"


def local_folder(source: str | Path) -> Path:
    """The folder of a run or a bundle, or the one of ``hub:owner/name`` once it is pulled. Raises as ``pull`` does."""
    text = str(source)
    return pull(text.removeprefix(HUB)) if text.startswith(HUB) else Path(source)


def pull(repository: str, revision: str = MAIN) -> Path:
    """The folder, in the Hub's cache, of the bundle that ``push`` put into ``repository`` ("owner/name").

    Raises ``MissingExtraError`` without the extra ``hub``, and ``CheckpointError`` where the hub cannot be reached and
    the cache has no copy.
    """
    hub = _load_hub()
    try:
        return Path(hub.snapshot_download(repository, revision=revision))
    except Exception as error:
        raise CheckpointError(
            f"cannot fetch {repository} at {revision} ({first_line(error)}); check the network and the name "
            "'owner/name', or copy the bundle and give its folder"
        ) from error


def pull_into(repository: str, out: Path, revision: str = MAIN) -> Bundle:
    """Copy the bundle of a repository to the folder ``out``: the files that it names, their sums checked, and no other.

    Raises as ``pull`` does, and ``CheckpointError`` for a repository that holds no bundle, or a damaged one;
    ``ConfigError`` where ``out`` is taken.
    """
    require_vacant(out, "bundle")
    folder = pull(repository, revision)
    bundle = read_bundle(folder)
    with new_folder(out) as place:
        for name in (*bundle.files, BUNDLE):
            content = (folder / name if name == BUNDLE else checked(bundle, folder, name)).read_bytes()
            atomic_write(place / name, content)
    return bundle


def push(bundle: Path, repository: str, *, private: bool = False) -> str:
    """Put the bundle into ``repository`` ("owner/name"), which is made if it does not exist, in one commit; returns its
    address. The token is huggingface_hub's own (``hf auth login`` or ``HF_TOKEN``).

    Raises ``CheckpointError`` for a folder that holds no whole bundle, and where the hub refuses or cannot be reached.
    """
    hub, held = _load_hub(), read_bundle(bundle)
    for name in held.files:
        checked(held, bundle, name)
    try:
        api = hub.HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=bundle, commit_message="Add network")
    except Exception as error:
        raise CheckpointError(
            f"cannot push to {repository} ({first_line(error)}); check the network, the name 'owner/name' and your "
            "token (hf auth login)"
        ) from error
    return str(commit.commit_url)


def _load_hub() -> Any:
    return load_extra("huggingface_hub", "the Hub", "hub")
