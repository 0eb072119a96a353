"""What people ask of a network from habit of torchvision, timm or Keras: taken where it means the same here, else
answered with what to say."""

from collections.abc import Collection

from resnetlab.core.errors import ConfigError, unknown_name

SETTINGS = {
    "drop_path_rate": ("stochastic_depth",),
    "drop_rate": ("head_dropout", "dropout"),
    "img_size": ("image_size",),
    "zero_init_last": ("zero_init_residual",),
    "cardinality": ("groups",),
    "width_per_group": ("base_width",),
}
"""Settings of other projects and ours that mean the same; of several, the first that the network has."""

_LOAD = "pretrained=True loads weights from the Hub, load_weights(net, file) those of a file"
_DILATION = "strides=(1, 2, 1, 1) leaves the last maps larger; no network here has dilated convolutions"
ANSWERS = {
    "weights": _LOAD,
    "checkpoint_path": _LOAD,
    "pretrained_cfg": _LOAD,
    "num_labels": "num_classes=10 is the number of classes",
    "act_layer": "activation='silu' names the activation",
    "norm_layer": "norm='group' names the norm",
    "output_stride": _DILATION,
    "replace_stride_with_dilation": _DILATION,
}
"""Settings of other projects that there are not here, and what to say instead."""

_HEAD = "the head is net.head (net.get_classifier()); net.reset_classifier(10) puts a new one in its place"
HEADS = dict.fromkeys(("fc", "classifier", "last_linear"), _HEAD)
"""Names of the head in other projects: a layer put there would be part of no forward pass."""

_PREPROCESSING = "resnetlab.models.pretrained.PRETRAINED['resnet50.tv2_in1k'].preprocessing is that of trained weights"
ATTRIBUTES = HEADS | {
    "conv1": "the first convolution is net.stem.conv",
    "bn1": "the first norm is net.stem.norm",
    "maxpool": "the max-pool is net.stem.pool",
    **{f"layer{number}": f"the stages are net.stages[0] and on: layer{number} is net.stages[{number - 1}]"
       for number in range(1, 5)},
    "features": "net.forward_features(images) gives the last map, net.stem and net.stages are its parts",
    "body": "net.forward_features(images) gives the last map, net.stem and net.stages are its parts",
    "avgpool": "net.pool_features(maps) pools",
    "default_cfg": _PREPROCESSING,
    "pretrained_cfg": _PREPROCESSING,
    "fit": "resnetlab.fit(net, data, epochs=10) trains",
    "evaluate": "resnetlab.evaluate(net, data) evaluates",
    "predict": "resnetlab.load(run).predict(images) gives the classes of images",
    "summary": "resnetlab.models.summary.summarise(net.config) counts its parameters and its cost",
    "freeze": "resnetlab.fit(net, data, freeze='stages.2') trains what is behind that stage only",
}  # fmt: skip
"""Attributes of other projects' networks that ours have not, and what to say instead."""


def our_setting(name: str, given: str, known: Collection[str]) -> str:
    """The setting of the network ``name`` that ``given`` means. Raises ``ConfigError`` where there is none, with what
    to say instead or the nearest of the ``known`` ones."""
    found = [ours for ours in (given, *SETTINGS.get(given, ())) if ours in known]
    if found:
        return found[0]
    if given in ANSWERS:
        raise ConfigError(f"{given} is no setting of {name}: {ANSWERS[given]}")
    if given in SETTINGS:
        raise ConfigError(f"{given} is not possible: {name} has no {' or '.join(SETTINGS[given])}")
    raise unknown_name(f"setting of {name}", given, known)
