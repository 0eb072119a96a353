"""resnetlab: build, train and explain plain and residual networks.

The names below are loaded on first use, so that ``import resnetlab`` costs milliseconds and loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnetlab.data.config import AugmentConfig as AugmentConfig
    from resnetlab.data.config import DecodeConfig as DecodeConfig
    from resnetlab.data.sources import load_data as load_data
    from resnetlab.data.torch_datasets import from_datasets as from_datasets
    from resnetlab.deploy.load import TrainedNetwork as TrainedNetwork
    from resnetlab.deploy.load import load as load
    from resnetlab.diagnostics.diagnose import diagnose as diagnose
    from resnetlab.models.weights import LoadReport as LoadReport
    from resnetlab.models.weights import export_weights as export_weights
    from resnetlab.models.weights import load_weights as load_weights
    from resnetlab.models.zoo import create_model as create_model
    from resnetlab.models.zoo import list_models as list_models
    from resnetlab.study import Study as Study
    from resnetlab.study import run_study as run_study
    from resnetlab.train.config import TrainConfig as TrainConfig
    from resnetlab.train.evaluate import evaluate as evaluate
    from resnetlab.train.loop import fit as fit
    from resnetlab.train.recipe import Recipe as Recipe
    from resnetlab.train.run import evaluate_run as evaluate_run
    from resnetlab.train.run import run_recipe as run_recipe

__version__ = "0.1.0"

_EXPORTS = {
    "resnetlab.data.config": ("AugmentConfig", "DecodeConfig"),
    "resnetlab.data.sources": ("load_data",),
    "resnetlab.data.torch_datasets": ("from_datasets",),
    "resnetlab.deploy.load": ("TrainedNetwork", "load"),
    "resnetlab.diagnostics.diagnose": ("diagnose",),
    "resnetlab.models.weights": ("LoadReport", "export_weights", "load_weights"),
    "resnetlab.models.zoo": ("create_model", "list_models"),
    "resnetlab.study": ("Study", "run_study"),
    "resnetlab.train.config": ("TrainConfig",),
    "resnetlab.train.evaluate": ("evaluate",),
    "resnetlab.train.loop": ("fit",),
    "resnetlab.train.recipe": ("Recipe",),
    "resnetlab.train.run": ("evaluate_run", "run_recipe"),
}
_HOME = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(["__version__", *_HOME])


def __getattr__(name: str) -> Any:
    if name not in _HOME and name[-1].isdigit():
        raise AttributeError(f"module 'resnetlab' has no {name!r}: networks are made by name, create_model({name!r})")
    if name not in _HOME:
        raise AttributeError(f"module 'resnetlab' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
