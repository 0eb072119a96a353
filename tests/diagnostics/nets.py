"""Small networks with their images, for every test of an analysis."""

from typing import Any

from resnetlab.diagnostics.config import DiagnosisConfig
from resnetlab.diagnostics.context import Context, context_of
from resnetlab.diagnostics.diagnose import measure_net
from resnetlab.diagnostics.load import INITIAL, DiagnosedNet
from resnetlab.models.zoo import create_model
from resnetlab.records.diagnosis import NetResult
from resnetlab.train.recipe import Recipe


def diagnosed(data, name: str = "cifar_resnet8", recipe: Recipe | None = None, **choices: Any) -> DiagnosedNet:
    """A network of that name, fitted to the data, that counts as trained."""
    given = {"in_chans": data.in_chans, "num_classes": len(data.classes), "image_size": data.image_size}
    net = create_model(name, **(given | choices))
    return DiagnosedNet(net=net, data=data, recipe=recipe or Recipe(model=name), state=INITIAL, trained=True)


def context(net: DiagnosedNet, *what: str, **settings: Any) -> Context:
    """The context of those analyses."""
    return context_of(net, DiagnosisConfig(what=what or ("all",), **settings))


def measured(net: DiagnosedNet, *what: str, **settings: Any) -> NetResult:
    """What those analyses measure on the network."""
    return measure_net(net, context(net, *what, **settings), what)
