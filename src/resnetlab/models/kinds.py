"""The kinds of networks, and their configurations as plain data that rebuild them."""

from collections.abc import Mapping
from typing import Any

from resnetlab.core.errors import ConfigError, unknown_name
from resnetlab.models.config import NetConfig
from resnetlab.models.mlp import MLPConfig
from resnetlab.models.resnet import ResNetConfig
from resnetlab.models.vgg import VGGConfig
from resnetlab.core.serialize import as_plain, from_plain

KINDS: dict[str, type[NetConfig]] = {"resnet": ResNetConfig, "vgg": VGGConfig, "mlp": MLPConfig}


def config_to_plain(config: object) -> dict[str, Any]:
    """The configuration as plain data, which JSON can hold and ``config_from_plain`` reads.

    Raises ``ConfigError`` for what is no configuration of ours.
    """
    for name, kind in KINDS.items():
        if type(config) is kind:
            return {"kind": name, **as_plain(config)}
    raise ConfigError(f"{type(config).__name__} is no configuration of resnetlab; build the network with create_model")


def config_from_plain(plain: Mapping[str, Any], origin: str = "the configuration") -> NetConfig:
    """The configuration that ``config_to_plain`` gave; ``build`` makes the network of it.

    Raises ``ConfigError`` for an unknown kind, and ``DataError`` naming ``origin`` for wrong keys or types.
    """
    kind = str(plain.get("kind"))
    if kind not in KINDS:
        raise unknown_name("kind of network", kind, KINDS)
    return from_plain(KINDS[kind], {key: value for key, value in plain.items() if key != "kind"}, origin)
