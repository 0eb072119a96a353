"""Feature maps for a detector or a segmenter, by timm's numbers: 0 is the stem's map, 1 that of the first stage …"""

from collections.abc import Sequence

from torch import Tensor, nn

from resnetlab.core.errors import ConfigError, require
from resnetlab.models.classifier import Classifier, MapInfo


class FeatureInfo(list[MapInfo]):
    """Every map of the network; the methods tell of those at ``out_indices``."""

    def __init__(self, maps: Sequence[MapInfo], out_indices: Sequence[int]) -> None:
        super().__init__(maps)
        self.out_indices = tuple(out_indices)

    def channels(self) -> list[int]:
        """The channels of each map."""
        return [self[number]["num_chs"] for number in self.out_indices]

    def reduction(self) -> list[int]:
        """The side of the image over that of each map."""
        return [self[number]["reduction"] for number in self.out_indices]

    def module_name(self) -> list[str]:
        """The module whose output each map is, by its name in the whole network."""
        return [self[number]["module"] for number in self.out_indices]


class FeatureMaps(nn.Module):
    """Images ``(N, C, H, W)`` to the maps at ``out_indices``, a list in the order of the network.

    A negative number counts from the last map, and a single number n asks for the last n. Left out are the head and the
    parts behind the last map that is asked for; parts are shared with ``net``, not copied.

    Raises ``ConfigError`` for a number that the network has not, and for one without maps.
    """

    def __init__(self, net: Classifier, out_indices: int | Sequence[int] | None = None) -> None:
        super().__init__()
        steps = net.feature_steps()
        count = len(steps)
        if not count:
            raise ConfigError(
                f"features_only is not possible: {type(net).__name__} has vectors and no maps; "
                "net.forward_intermediates(images) gives those of each stage"
            )
        asked = range(count) if out_indices is None else out_indices
        numbers = range(-asked, 0) if isinstance(asked, int) else asked
        fits = len(numbers) > 0 and all(-count <= number < count for number in numbers)
        require(fits, "out_indices", out_indices, f"some of {', '.join(map(str, range(count)))}")
        self.out_indices = sorted({number % count for number in numbers})
        self.steps = nn.ModuleList(step.part for step in steps[: self.out_indices[-1] + 1])
        self.feature_info = FeatureInfo(net.feature_info, self.out_indices)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for number, step in enumerate(self.steps):
            x = step(x)
            if number in self.out_indices:
                maps.append(x)
        return maps
