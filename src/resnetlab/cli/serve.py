"""``resnetlab serve``: a bundle behind HTTP."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from resnetlab.cli.tables import show
from resnetlab.deploy.serve.config import ServeConfig


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve a bundle over HTTP: POST /predict, the Open Inference Protocol, a page, metrics.

    Ctrl-C and SIGTERM end it with code 0, once every request that was accepted is answered.
    """

    bundle: tyro.conf.Positional[str]
    """Folder of a bundle, or hub:owner/name."""
    config: Annotated[ServeConfig, tyro.conf.arg(name="")] = field(default_factory=ServeConfig)
    """How it is served."""

    def __call__(self) -> None:
        from resnetlab.deploy.serve.server import serve

        serve(self.bundle, self.config, show)
