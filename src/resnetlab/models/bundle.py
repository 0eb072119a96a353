"""A network as a folder that rebuilds it: ``config.json``, ``model.safetensors`` and a model card ``README.md``."""

import json
from pathlib import Path

from safetensors.torch import save
from torch import nn

from resnetlab.core.errors import CheckpointError, ConfigError, DataError
from resnetlab.core.files import atomic_write, read_json, write_json
from resnetlab.models.init import build
from resnetlab.models.kinds import config_from_plain, config_to_plain
from resnetlab.models.weight_files import MODEL_FILE
from resnetlab.models.weights import export_weights, load_weights
from resnetlab.core.serialize import as_plain

CONFIG_FILE, CARD_FILE = "config.json", "README.md"
LIBRARY = "resnetlab"


def write_bundle(model: nn.Module, folder: Path, *, title: str, text: str = "") -> None:
    """Write the network to ``folder``; ``title`` and ``text`` go into its model card.

    Raises ``ConfigError`` for a network that is none of ours, ``StorageError`` where the system refuses.
    """
    plain = config_to_plain(getattr(model, "config", None))
    atomic_write(folder / MODEL_FILE, save(export_weights(model), metadata={"format": "pt"}))
    write_json(folder / CONFIG_FILE, {"library_name": LIBRARY, **plain})
    atomic_write(folder / CARD_FILE, make_card(model, title, text))


def read_bundle(folder: Path) -> nn.Module:
    """The network in ``folder``, rebuilt from its configuration and loaded.

    Raises ``CheckpointError`` where a file is missing or damaged, or they do not fit each other.
    """
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
