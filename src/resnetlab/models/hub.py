"""Networks from and to the Hugging Face Hub (extra ``hub``), and the bundle folder that carries them.

A bundle is ``config.json``, ``model.safetensors`` and a model card. ``HF_ENDPOINT`` and ``HF_HOME`` name hub and cache.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save
from torch import nn

from resnetlab.core.errors import CheckpointError, ConfigError, DataError, MissingExtraError, first_line, load_extra
from resnetlab.core.files import atomic_write, read_json, write_json
from resnetlab.core.serialize import as_plain
from resnetlab.models.architectures import LIBRARY, config_from_plain, config_to_plain
from resnetlab.models.init import build
from resnetlab.models.pretrained import MAIN, PRETRAINED, default_tag
from resnetlab.models.weight_files import CONFIG_FILE, MODEL_FILE
from resnetlab.models.weights import export_weights, load_weights

CARD_FILE = "README.md"


def fetch(name: str) -> Path:
    """The file of the weights ``name.tag``, or of a name's first tag; fetched once, then taken from the cache.

    Raises ``ConfigError`` for unknown weights, ``MissingExtraError`` without the extra ``hub``, and
    ``CheckpointError`` where the hub cannot be reached and the cache has no copy.
    """
    weights = PRETRAINED[default_tag(name)]
    return _download(weights.repository, MODEL_FILE, weights.revision)


def is_cached(name: str) -> bool:
    """Whether the cache has the file of the weights ``name.tag``; the network is not asked."""
    weights = PRETRAINED[name]
    try:
        hub = _load_hub()
    except MissingExtraError:
        return False
    return isinstance(hub.try_to_load_from_cache(weights.repository, MODEL_FILE, revision=weights.revision), str)


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
                f"cannot push to {repository} ({first_line(error)}); check the network, the name 'owner/name' and "
                "your token (hf auth login)"
            ) from error
    return str(commit.commit_url)


def write_bundle(model: nn.Module, folder: str | Path, *, title: str, text: str = "") -> None:
    """Write the network to ``folder``; ``title`` and ``text`` go into its model card.

    Raises ``ConfigError`` for a network that is none of ours, ``StorageError`` where the system refuses.
    """
    folder = Path(folder)
    plain = config_to_plain(getattr(model, "config", None))
    atomic_write(folder / MODEL_FILE, save(export_weights(model), metadata={"format": "pt"}))
    write_json(folder / CONFIG_FILE, {"library_name": LIBRARY, **plain})
    atomic_write(folder / CARD_FILE, make_card(model, title, text))


def read_bundle(folder: str | Path) -> nn.Module:
    """The network in ``folder``, rebuilt from its configuration and loaded.

    Raises ``CheckpointError`` where a file is missing or damaged, or they do not fit each other.
    """
    folder = Path(folder)
    origin = folder / CONFIG_FILE
    try:
        plain = read_json(origin)
        if not isinstance(plain, dict) or plain.pop("library_name", None) != LIBRARY:
            raise DataError(f"{origin} is no configuration of resnetlab: its library_name is another")
        config = config_from_plain(plain, str(origin))
    except (ConfigError, DataError) as error:
        raise CheckpointError(f"{origin}: {error}") from error
    model = build(config, seed=0)
    load_weights(model, folder / MODEL_FILE)
    return model


def make_card(model: nn.Module, title: str, text: str) -> str:
    """A model card in Markdown, with the metadata that the Hub reads."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    settings = json.dumps(as_plain(model.config), indent=1)
    return (
        "---\nlibrary_name: resnetlab\npipeline_tag: image-classification\ntags:\n- resnet\n---\n"
        f"# {title}\n\n{text or 'A network trained with resnetlab.'}\n\n"
        f"{parameters:,} parameters. Its configuration:\n\n```json\n{settings}\n```\n"
    )


def _download(repository: str, file: str, revision: str) -> Path:
    hub = _load_hub()
    try:
        return Path(hub.hf_hub_download(repository, file, revision=revision))
    except Exception as error:
        raise CheckpointError(
            f"cannot fetch {file} of {repository} at {revision} ({first_line(error)}). Without a network: fetch it "
            "where there is one and copy the cache (HF_HOME), or load the file itself with load_weights(model, file)"
        ) from error


def _load_hub() -> Any:
    return load_extra("huggingface_hub", "the Hub", "hub", ", or load a file with load_weights(model, file)")
