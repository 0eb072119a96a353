"""Trained weights by ``name.tag``: where they are on the Hugging Face Hub (extra ``hub``), and how their images are
preprocessed. ``HF_ENDPOINT`` and ``HF_HOME`` name hub and cache.

They are timm's repositories ``timm/<name>.<tag>``, most of them converted from torchvision's weights of the same name
(``tv`` is its V1, ``tv2`` its V2). Preprocessing is that of timm 1.0.31's evaluation.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnetlab.core.errors import CheckpointError, ConfigError, MissingExtraError, first_line, load_extra
from resnetlab.models.registry import Registry
from resnetlab.models.weight_files import MODEL_FILE

MAIN = "main"


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes an input: resize its short side to ``resize``, cut ``side``×``side`` from the centre, scale
    to 0 … 1, subtract ``mean`` and divide by ``std`` (of red, green and blue).

    ``crop`` is ``side`` over the short side; ``interpolation`` is ``"bilinear"`` or ``"bicubic"``.
    """

    side: int = 224
    crop: float = 0.875
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def resize(self) -> int:
        """The short side in pixels before the cut."""
        return int(self.side / self.crop)


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """One repository of weights.

    ``revision`` is the commit that is fetched. Where we could confirm none it is ``main``, which may move.
    """

    repository: str
    revision: str = MAIN
    preprocessing: Preprocessing = Preprocessing()


_V2 = Preprocessing(crop=0.965)
_BICUBIC_288 = Preprocessing(side=288, crop=0.95, interpolation="bicubic")
_WHOLE_288 = Preprocessing(side=288, crop=1.0, interpolation="bicubic")
_WHOLE_320 = Preprocessing(side=320, crop=1.0, interpolation="bicubic")
_BICUBIC = Preprocessing(interpolation="bicubic")
_HALF = Preprocessing(side=288, crop=1.0, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

# In the order of each name, the first is the one that pretrained=True takes.
_TAGS: tuple[tuple[str, Preprocessing, str], ...] = (
    ("resnet18.tv_in1k", Preprocessing(), "590dfdd48494d2316a8385e1ca7fbec3b9359b35"),
    ("resnet34.tv_in1k", Preprocessing(), MAIN),
    ("resnet50.tv2_in1k", _V2, "f2a8587ea6b4a3a1d84450bcc2561b07952daae2"),
    ("resnet50.tv_in1k", Preprocessing(), "aa6c2d36d56bc0209040c02b5a7b7d7bf11d57b8"),
    ("resnet101.tv2_in1k", _V2, MAIN),
    ("resnet101.tv_in1k", Preprocessing(), MAIN),
    ("resnet152.tv2_in1k", _V2, "6c03aba8c980980031f286eec039dc10543e01a4"),
    ("resnet152.tv_in1k", Preprocessing(), MAIN),
    ("wide_resnet50_2.tv2_in1k", _V2, MAIN),
    ("wide_resnet50_2.tv_in1k", Preprocessing(), MAIN),
    ("wide_resnet101_2.tv2_in1k", _V2, "ccee496e52d4a776a118bf242c6627033fb1a0fd"),
    ("wide_resnet101_2.tv_in1k", Preprocessing(), MAIN),
    ("resnext50_32x4d.tv2_in1k", _V2, MAIN),
    ("resnext50_32x4d.tv_in1k", Preprocessing(), MAIN),
    ("resnext101_32x8d.tv2_in1k", _V2, MAIN),
    ("resnext101_32x8d.tv_in1k", Preprocessing(), MAIN),
    ("resnext101_64x4d.tv_in1k", Preprocessing(), MAIN),
    ("resnext101_32x4d.gluon_in1k", _BICUBIC, MAIN),
    ("resnext50d_32x4d.bt_in1k", _BICUBIC_288, MAIN),
    ("resnet26.bt_in1k", _BICUBIC_288, MAIN),
    ("resnet50_gn.a1h_in1k", _BICUBIC_288, MAIN),
    ("resnet50c.gluon_in1k", _BICUBIC, MAIN),
    ("resnet101c.gluon_in1k", _BICUBIC, MAIN),
    ("resnet152c.gluon_in1k", _BICUBIC, MAIN),
    ("resnet50s.gluon_in1k", _BICUBIC, MAIN),
    ("resnet101s.gluon_in1k", _BICUBIC, MAIN),
    ("resnet152s.gluon_in1k", _BICUBIC, MAIN),
    ("resnetv2_18.ra4_e3600_r224_in1k", _HALF, MAIN),
    ("resnetv2_34.ra4_e3600_r224_in1k", _HALF, MAIN),
    ("resnetv2_50.a1h_in1k", _HALF, MAIN),
    ("resnetv2_101.a1h_in1k", _HALF, MAIN),
    ("resnetv2_18d.ra4_e3600_r224_in1k", _HALF, MAIN),
    ("resnetv2_34d.ra4_e3600_r224_in1k", _HALF, MAIN),
    ("resnetv2_50d_gn.ah_in1k", _HALF, MAIN),
    ("resnet18d.ra2_in1k", _BICUBIC_288, MAIN),
    ("resnet26d.bt_in1k", _BICUBIC_288, MAIN),
    ("resnet34d.ra2_in1k", _BICUBIC_288, MAIN),
    ("resnet50d.ra2_in1k", _BICUBIC_288, MAIN),
    ("resnet101d.ra2_in1k", _WHOLE_320, MAIN),
    ("resnet152d.ra2_in1k", _WHOLE_320, MAIN),
    ("resnet200d.ra2_in1k", _WHOLE_320, MAIN),
    ("seresnet50.a1_in1k", _WHOLE_288, MAIN),
    ("seresnet152d.ra2_in1k", _WHOLE_320, MAIN),
    ("seresnext26d_32x4d.bt_in1k", _BICUBIC_288, MAIN),
    ("seresnext50_32x4d.racm_in1k", _BICUBIC_288, MAIN),
    ("seresnext101_32x4d.gluon_in1k", _BICUBIC, MAIN),
    ("seresnext101_32x8d.ah_in1k", _WHOLE_288, MAIN),
    ("seresnext101d_32x8d.ah_in1k", _WHOLE_288, MAIN),
    ("seresnext101_64x4d.gluon_in1k", _BICUBIC, MAIN),
    ("vgg11.tv_in1k", Preprocessing(), "38b46049b490ec2bdb6d4d32b8354c74977f3347"),
    ("vgg13.tv_in1k", Preprocessing(), MAIN),
    ("vgg16.tv_in1k", Preprocessing(), "3394518cba29aee1ea82a49d971be90d2dd1dab7"),
    ("vgg19.tv_in1k", Preprocessing(), "128d4708565b3a414bcbb9bbad440b2fe37b9f18"),
    ("vgg11_bn.tv_in1k", Preprocessing(), MAIN),
    ("vgg13_bn.tv_in1k", Preprocessing(), MAIN),
    ("vgg16_bn.tv_in1k", Preprocessing(), "e00c01e7cee168262dcba6428dc4a8f41e27e965"),
    ("vgg19_bn.tv_in1k", Preprocessing(), MAIN),
)

PRETRAINED = Registry[Pretrained](
    "pretrained weights",
    {
        tag: Pretrained(repository=f"timm/{tag}", preprocessing=preprocessing, revision=revision)
        for tag, preprocessing, revision in _TAGS
    },
)


def is_tag(name: str) -> bool:
    """Whether ``name`` stands for weights of the Hub: a ``name.tag``, or a name that has some."""
    return any(name in (tag, tag.partition(".")[0]) for tag in PRETRAINED)


def default_tag(name: str) -> str:
    """The default ``name.tag`` of a name, or ``name`` itself where it has a tag.

    Raises ``ConfigError`` for a network without trained weights here.
    """
    if "." in name:
        PRETRAINED[name]
        return name
    for tag in PRETRAINED:
        if tag.partition(".")[0] == name:
            return tag
    raise ConfigError(
        f"there are no pretrained weights of {name!r}; resnetlab.list_models(pretrained=True) names those that there "
        "are, and load_weights(net, file) loads a file"
    )


def fetch(name: str) -> Path:
    """The file of the weights ``name.tag``, or of a name's first tag; fetched once, then taken from the cache.

    Raises ``ConfigError`` for unknown weights, ``MissingExtraError`` without the extra ``hub``, and
    ``CheckpointError`` where the hub cannot be reached and the cache has no copy.
    """
    weights = PRETRAINED[default_tag(name)]
    try:
        return Path(_load_hub().hf_hub_download(weights.repository, MODEL_FILE, revision=weights.revision))
    except MissingExtraError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"cannot fetch {MODEL_FILE} of {weights.repository} at {weights.revision} ({first_line(error)}). Without a "
            "network: fetch it where there is one and copy the cache (HF_HOME), or load the file itself with "
            "load_weights(model, file)"
        ) from error


def is_cached(name: str) -> bool:
    """Whether the cache has the file of the weights ``name.tag``; the network is not asked."""
    weights = PRETRAINED[name]
    try:
        hub = _load_hub()
    except MissingExtraError:
        return False
    return isinstance(hub.try_to_load_from_cache(weights.repository, MODEL_FILE, revision=weights.revision), str)


def _load_hub() -> Any:
    return load_extra("huggingface_hub", "the Hub", "hub", ", or load a file with load_weights(model, file)")
