"""Weights from and to the Hugging Face Hub (extra ``hub``). ``HF_ENDPOINT`` and ``HF_HOME`` name the hub and cache."""

from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from resnetlab.core.errors import CheckpointError, MissingExtraError
from resnetlab.models.bundle import CONFIG_FILE, read_bundle, write_bundle
from resnetlab.models.pretrained import MAIN, PRETRAINED, default_tag
from resnetlab.models.weight_files import MODEL_FILE


def fetch(name: str) -> Path:
    """The file of the weights ``name.tag``, or of a name's first tag; fetched once, then taken from the cache.

    Raises ``ConfigError`` for unknown weights, ``MissingExtraError`` without the extra ``hub``, and
    ``CheckpointError`` where the hub cannot be reached and the cache has no copy.
    """
    weights = PRETRAINED[default_tag(name)]
    return _download(weights.repository, MODEL_FILE, weights.revision)


def pull(repository: str, revision: str = MAIN) -> nn.Module:
    """The network that ``push`` put into ``repository`` ("owner/name"), rebuilt and loaded.

    Raises as ``fetch`` does, and ``CheckpointError`` for a repository that is none of ours.
    """
    config = _download(repository, CONFIG_FILE, revision)
    # The folder is named after the commit: both files come from that one, whatever is pushed meanwhile.
    _download(repository, MODEL_FILE, config.parent.name)
    return read_bundle(config.parent)


def push(model: nn.Module, repository: str, *, text: str = "", private: bool = False) -> str:
    """Put the network into ``repository`` ("owner/name"), which is made if it does not exist; returns the address.

    The repository gets ``config.json``, ``model.safetensors`` and a model card with ``text``, in one commit. The token
    is huggingface_hub's own (``hf auth login`` or ``HF_TOKEN``).

    Raises ``CheckpointError`` where the hub refuses or cannot be reached.
    """
    hub = _load_hub()
    with TemporaryDirectory() as folder:
        write_bundle(model, Path(folder), title=repository.rpartition("/")[2], text=text)
        try:
            api = hub.HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Add network")
        except Exception as error:
            raise CheckpointError(
                f"cannot push to {repository} ({_first_line(error)}); check the network, the name 'owner/name' and "
                "your token (hf auth login)"
            ) from error
    return str(commit.commit_url)


def _download(repository: str, file: str, revision: str) -> Path:
    hub = _load_hub()
    try:
        return Path(hub.hf_hub_download(repository, file, revision=revision))
    except Exception as error:
        raise CheckpointError(
            f"cannot fetch {file} of {repository} at {revision} ({_first_line(error)}). Without a network: fetch it "
            "where there is one and copy the cache (HF_HOME), or load the file itself with load_weights(model, file)"
        ) from error


def _load_hub() -> Any:
    try:
        return import_module("huggingface_hub")
    except Exception as error:  # a broken dependency of it fails in other ways than ImportError
        raise MissingExtraError(
            f"the Hub needs huggingface_hub, which does not load ({_first_line(error)}); "
            "pip install 'resnetlab[hub]', or load a file with load_weights(model, file)"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
