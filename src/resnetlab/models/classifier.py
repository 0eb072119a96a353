"""What every network of the zoo can be asked for: features, intermediate maps, another head."""

from dataclasses import replace
from typing import Self

from torch import Tensor, nn

from resnetlab.models.config import NetConfig
from resnetlab.models.init import initialise


class Classifier(nn.Module):
    """Stem → stages → features → head; the families fill in what lies between.

    ``forward`` maps images ``(N, in_chans, H, W)`` to logits ``(N, num_classes)``, or with ``num_classes=0`` to
    pooled features ``(N, num_features)``.
    """

    config: NetConfig
    stem: nn.Module
    stages: nn.Sequential
    head: nn.Module
    num_features: int

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """What the last stage gives: a map ``(N, C, H, W)``, or a vector ``(N, C)`` of a fully-connected net."""
        out: Tensor = self.finish(self.stages(self.stem(self.prepare(x))))
        return out

    def forward_head(self, features: Tensor) -> Tensor:
        """Pooled features to logits ``(N, num_classes)``."""
        logits: Tensor = self.head(self.pool_features(features))
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

    def reset_classifier(self, num_classes: int, seed: int = 0) -> Self:
        """Put a new head of ``num_classes`` in place, drawn from ``seed``; 0 takes the head away. Returns the network.

        Raises ``ConfigError`` for a negative number.
        """
        self.config = replace(self.config, num_classes=num_classes)
        before = next(self.parameters())
        self.head = make_head(self.num_features, num_classes)
        if before.device.type != "meta":
            holder = nn.ModuleDict({"head": self.head})
            initialise(holder, seed=seed, init=self.config.init)
        self.head.to(device=before.device, dtype=before.dtype)
        return self


def make_head(num_features: int, num_classes: int) -> nn.Module:
    """The linear layer from features to logits; the identity for no classes."""
    return nn.Linear(num_features, num_classes) if num_classes else nn.Identity()
