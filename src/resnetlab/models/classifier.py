"""What every network of the zoo can be asked for: features, intermediate maps, another head."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypedDict

from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.core.errors import listed
from resnetlab.models.config import GlobalPool, NetConfig, ResidualConfig
from resnetlab.models.habits import ATTRIBUTES, HEADS
from resnetlab.models.init import initialise
from resnetlab.models.recompute import recompute_blocks


class MapInfo(TypedDict):
    """A feature map as timm tells of it: its channels, the image's side over its own, and the module that gives it."""

    num_chs: int
    reduction: int
    module: str


@dataclass(frozen=True, kw_only=True)
class FeatureStep:
    """The part of a network that leads from one feature map to the next, or from the image to the first."""

    part: nn.Module
    info: MapInfo


class Classifier(nn.Module):
    """Stem → stages → features → head; the families fill in what lies between.

    ``forward`` maps images ``(N, in_chans, H, W)`` to logits ``(N, num_classes)``, or with ``num_classes=0`` to
    pooled features ``(N, num_features)``; with ``global_pool=""`` to what ``forward_features`` gives.
    """

    __jit_unused_properties__: ClassVar = ["feature_info"]

    pools: bool = True
    head_dropout: float = 0.0

    if TYPE_CHECKING:
        # torch.jit.script reads what a class says of its attributes, and knows no nn.Module.
        config: NetConfig
        stem: nn.Module
        stages: nn.Sequential
        head: nn.Module
        num_features: int
        num_classes: int

    def configure(self, config: NetConfig) -> None:
        """Take the settings that belong to no layer. A network calls it first."""
        self.config = config
        self.num_classes, self.pools = config.num_classes, config.global_pool != ""
        self.head_dropout = config.head_dropout if isinstance(config, ResidualConfig) else 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """What the last stage gives: a map ``(N, C, H, W)``, or a vector ``(N, C)`` of a fully-connected net."""
        out: Tensor = self.finish(self.stages(self.stem(self.prepare(x))))
        return out

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Features to logits ``(N, num_classes)``; with ``pre_logits`` to what the head is given."""
        if not self.pools:
            return features
        pooled = self.pool_features(features)
        if self.head_dropout > 0:
            pooled = F.dropout(pooled, self.head_dropout, self.training)
        logits: Tensor = pooled if pre_logits else self.head(pooled)
        return logits

    def forward_intermediates(self, x: Tensor) -> dict[str, Tensor]:
        """The outputs of ``stem``, of each ``stages.<i>`` and of ``features``, by name.

        They may be kept: nothing in the network is overwritten in place.
        """
        found = {"stem": self.stem(self.prepare(x))}
        last = found["stem"]
        for number, stage in enumerate(self.stages):
            last = found[f"stages.{number}"] = stage(last)
        found["features"] = self.finish(last)
        return found

    def prepare(self, x: Tensor) -> Tensor:
        """What happens to the input before the stem."""
        return x

    def finish(self, x: Tensor) -> Tensor:
        """What happens to the last stage's output before it counts as features."""
        return x

    def pool_features(self, features: Tensor) -> Tensor:
        """Features as ``forward_features`` gives them to vectors ``(N, num_features)``."""
        return features.mean(dim=(2, 3))

    def feature_steps(self) -> list[FeatureStep]:
        """The parts that, one behind the other, give the feature maps of ``feature_info``; none where there are no
        maps, but vectors."""
        return []

    @property
    def feature_info(self) -> list[MapInfo]:
        """The feature maps that ``create_model(…, features_only=True)`` gives, by their numbers."""
        return [step.info for step in self.feature_steps()]

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: GlobalPool | None = None, *, seed: int = 0) -> Self:
        """Put a new head of ``num_classes`` in place, drawn from ``seed``; 0 takes the head away. Returns the network.

        With 0, ``global_pool=""`` takes the pooling away too. Raises ``ConfigError`` for a negative number.
        """
        pool = self.config.global_pool if global_pool is None else global_pool
        self.configure(replace(self.config, num_classes=num_classes, global_pool=pool))
        before = next(self.parameters())
        self.head = make_head(self.num_features, num_classes)
        if before.device.type != "meta":
            holder = nn.ModuleDict({"head": self.head})
            initialise(holder, seed=seed, init=self.config.init)
        self.head.to(device=before.device, dtype=before.dtype)
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass (``recompute_blocks``), or keep them again."""
        recompute_blocks(self, "auto" if enable else None)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's; names of another project are refused with the way to load them, also without ``strict``, where
        torch would load nothing and not say so."""
        own = self.state_dict()
        foreign = [name for name in state_dict if name not in own]
        if foreign and (strict or len(foreign) == len(state_dict)):
            raise RuntimeError(
                f"{listed(foreign, 3)}: no names of this network, whose first is {next(iter(own), 'none')!r}; "
                "resnetlab.load_weights(net, state_dict) loads weights of torchvision, timm and others by their names"
            )
        return super().load_state_dict(state_dict, strict, assign)

    def __getattr__(self, name: str) -> Any:
        if name in ATTRIBUTES and name not in self._modules:
            raise AttributeError(f"{type(self).__name__} has no {name!r}: {ATTRIBUTES[name]}")
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in HEADS:
            raise AttributeError(f"{type(self).__name__} has no {name!r}, so none can be put there: {HEADS[name]}")
        super().__setattr__(name, value)


def make_head(num_features: int, num_classes: int) -> nn.Module:
    """The linear layer from features to logits; the identity for no classes."""
    return nn.Linear(num_features, num_classes) if num_classes else nn.Identity()
