"""Surgery on depth: make a trained network deeper or shallower, reorder its blocks, or cut its shortcuts.

Each function gives a new network and leaves the given one alone. The blocks of the result are named without gaps, and
its ``config`` rebuilds it: ``config.make()`` takes its ``state_dict()`` and gives the same outputs.
"""

from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import nn

from resnetlab.core.errors import ConfigError, require, unknown_name
from resnetlab.models.blocks import ResidualBlock
from resnetlab.models.classifier import Classifier
from resnetlab.models.config import USUAL_START, ResidualConfig
from resnetlab.models.init import build
from resnetlab.models.mlp import MLPConfig, divide_blocks
from resnetlab.models.resnet import ResNetConfig
from resnetlab.models.shortcuts import IdentityShortcut


def deepen(net: nn.Module, stage: int, n: int, seed: int = 0) -> Classifier:
    """``net`` with ``n`` more blocks behind the last one of a stage (counted from 0), each the identity to the bit.

    In a new block the last scale and all that is added behind it are zero, so F(x) = 0 and y = g(F(x) + x) = x: with g
    = ReLU since x is another ReLU's output and x ≥ 0, in pre-activation order since g is the identity. This is the
    deeper net that is no worse by construction (He et al. 2015, arXiv:1512.03385, §1). It goes on learning: the
    gradient of the last scale is not zero, and after one step that of the layers before it is not either.

    The other weights are those that the deeper net built from ``seed`` has under their names. Outputs are equal in
    training mode too, unless the net drops at random: stochastic depth follows its rule for the new number of blocks.

    Raises ``ConfigError`` where no new block can be the identity: for plain nets, option C, gates and, in
    post-activation order, activations other than relu; and for a depth that the family's configuration cannot express.
    """
    config = _checked_config(net)
    result = _copy(net)
    require(0 <= stage < len(result.stages), "stage", stage, f"from 0 to {len(result.stages) - 1}")
    require(n >= 1, "n", n, "at least 1 block")
    if config.shortcut not in ("A", "B"):
        raise ConfigError(
            f"a net with shortcut={config.shortcut!r} cannot be deepened: its blocks carry no identity to start from; "
            "use a net with shortcut 'A' or 'B'"
        )
    if isinstance(config, ResNetConfig) and config.stride_at == "last":
        raise ConfigError(
            "a net with stride_at='last' cannot be deepened: the last block of a stage changes the shape; "
            "use one with stride_at='first'"
        )
    depths = _depths(result)
    depths[stage] += n
    result.config = with_depths(config, depths)
    on_meta = next(result.parameters()).device.type == "meta"
    blocks = _zero_blocks(result.config, stage, n, seed, "meta" if on_meta else "cpu")
    for block in blocks:
        _require_identity(block)
        _place_like(block, result)
    _stage(result, stage).extend(blocks)
    return _with_drops(result)


def drop_blocks(net: nn.Module, which: Collection[str]) -> Classifier:
    """``net`` without the blocks of the names ``which``, such as ``"stages.1.2"``: each is skipped.

    The lesion of Veit et al. 2016, arXiv:1605.06431, §4.1, as a smaller network: the blocks behind a gap move up, so
    ``stages.1.3`` becomes ``stages.1.2``.

    Raises ``ConfigError`` for a name that is no block, for a block that changes the shape, for the last block of a
    stage, and for depths that the family's configuration cannot express.
    """
    config = _checked_config(net)
    result = _copy(net)
    places = {_place(result, name) for name in which}
    for name in sorted(which):
        if _place(result, name) in _shape_changers(config):
            raise ConfigError(
                f"{name} cannot be dropped: it changes the shape of its input, so the next block does not fit "
                "without it; choose blocks behind the first one of a stage"
            )
    depths = _depths(result)
    for stage, number in sorted(places, reverse=True):
        del _stage(result, stage)[number]
        depths[stage] -= 1
    if config.init == "tat":
        # The blocks that stay keep their activation, which fits the depth that the net began with.
        config = replace(config, tailored_slope=config.slope)
    result.config = with_depths(config, depths)
    return _with_drops(result)


def droppable_blocks(net: nn.Module) -> list[str]:
    """The blocks that ``drop_blocks`` can leave out, each alone, by name from the input on. Raises as it does."""
    config = _checked_config(net)
    assert isinstance(net, Classifier)
    depths, fixed = _depths(net), _shape_changers(config)
    found = []
    for stage, depth in enumerate(depths):
        try:
            with_depths(config, [blocks - (number == stage) for number, blocks in enumerate(depths)])
        except ConfigError:
            continue
        found += [f"stages.{stage}.{number}" for number in range(depth) if (stage, number) not in fixed]
    return found


def reorder(net: nn.Module, order: Sequence[str]) -> Classifier:
    """``net`` with the blocks named in ``order`` in that order, at the places that they have together.

    ``["stages.0.3", "stages.0.1"]`` exchanges the two; blocks that are not named stay where they are. Those of several
    stages are put in order stage by stage (Veit et al. 2016, arXiv:1605.06431, §4.3).

    Raises ``ConfigError`` for a name that is no block or stands twice, and where a block that changes the shape would
    leave its place.
    """
    config = _checked_config(net)
    result = _copy(net)
    places = [_place(result, name) for name in order]
    require(len(set(places)) == len(places), "order", list(order), "without repetitions")
    moves: dict[tuple[int, int], tuple[int, int]] = {}
    for stage in {stage for stage, _ in places}:
        here = [place for place in places if place[0] == stage]
        moves |= dict(zip(sorted(here), here, strict=True))
    for new, old in moves.items():
        if new != old and {new, old} & _shape_changers(config):
            raise ConfigError(
                f"stages.{old[0]}.{old[1]} cannot take the place of stages.{new[0]}.{new[1]}: one of them changes the "
                "shape of its input; reorder blocks behind the first one of a stage"
            )
    blocks = {place: _stage(result, place[0])[place[1]] for place in places}
    for (stage, number), old in moves.items():
        _stage(result, stage)[number] = blocks[old]
    return _with_drops(result)


def to_plain(net: nn.Module) -> Classifier:
    """``net`` with its shortcuts cut: y = g(F(x)), F unchanged, projections and gates dropped.

    The settings of its configuration that only say how a residual net starts (``zero_init_residual``,
    ``scale_residual``) are off, as a plain net cannot have them. A plain net gives an equal plain net.

    Raises ``ConfigError`` for a net without residual blocks.
    """
    config = _checked_config(net)
    result = _copy(net)
    for stage in range(len(result.stages)):
        for block in _stage(result, stage):
            # Deleted first: a None in place of a module would stay in the list of modules.
            assert isinstance(block, ResidualBlock)
            del block.shortcut, block.gate
            block.shortcut = block.gate = None
    result.config = replace(config, shortcut=None, zero_init_residual=False, scale_residual=False)
    return result


def with_depths(config: ResidualConfig, depths: Sequence[int]) -> ResidualConfig:
    """``config`` with so many blocks in each stage.

    Raises ``ConfigError`` where no configuration has them: a fully-connected net divides its total evenly.
    """
    if isinstance(config, ResNetConfig):
        return replace(config, depths=tuple(depths))
    if isinstance(config, MLPConfig):
        changed = replace(config, depth=config.depth + 2 * (sum(depths) - config.blocks))
        even = divide_blocks(changed.blocks, changed.widths)
        if even != list(depths):
            raise ConfigError(
                f"a fully-connected net cannot have {list(depths)} blocks over widths {config.widths}: it divides "
                f"{sum(depths)} blocks as {even}; keep to that, or use a net of one width"
            )
        return changed
    raise ConfigError(f"{type(config).__name__} has no known depths; use a ResNet or an MLP")


def _checked_config(net: nn.Module) -> ResidualConfig:
    """The configuration of ``net``, checked to describe it exactly: surgery edits both together."""
    config = getattr(net, "config", None)
    if not isinstance(net, Classifier) or not isinstance(config, ResidualConfig):
        raise ConfigError(
            f"surgery needs a network of residual blocks, or a plain one, not {type(net).__name__}; "
            "make one with create_model, such as cifar_resnet20"
        )
    # The text of a module shows every layer with its sizes and strides.
    if repr(net) != repr(build(config, seed=0, device="meta")):
        raise ConfigError(
            "the network is not the one that its config describes; "
            "do surgery first, and fold, convert, checkpoint or change layers by hand afterwards"
        )
    return config


def _copy(net: nn.Module) -> Classifier:
    copied = deepcopy(net)
    assert isinstance(copied, Classifier)
    return copied


def _stage(net: Classifier, stage: int) -> nn.Sequential:
    blocks = net.stages[stage]
    assert isinstance(blocks, nn.Sequential)
    return blocks


def _depths(net: Classifier) -> list[int]:
    return [len(_stage(net, stage)) for stage in range(len(net.stages))]


def _place(net: Classifier, name: str) -> tuple[int, int]:
    places = {f"stages.{i}.{j}": (i, j) for i, depth in enumerate(_depths(net)) for j in range(depth)}
    if name not in places:
        raise unknown_name("block", name, places)
    return places[name]


def _shape_changers(config: ResidualConfig) -> set[tuple[int, int]]:
    """Places of the blocks whose output has another shape: those where option B has no identity."""
    other = build(replace(config, shortcut="B", **USUAL_START), seed=0, device="meta")
    assert isinstance(other, Classifier)
    return {
        (stage, number)
        for stage in range(len(other.stages))
        for number, block in enumerate(_stage(other, stage))
        if type(block.shortcut) is not IdentityShortcut
    }


def _zero_blocks(config: ResidualConfig, stage: int, n: int, seed: int, device: str) -> list[ResidualBlock]:
    """The last ``n`` blocks of a stage of the network of ``config``, with F(x) = 0."""
    # ReZero, SkipInit and Fixup start every branch at zero by themselves; a second zero behind theirs would stop all
    # gradient.
    if config.scaling == "none":
        config = replace(config, zero_init_residual=True, scale_residual=False)
    fresh = build(config, seed=seed, device=device)
    assert isinstance(fresh, Classifier)
    return [block for block in _stage(fresh, stage) if isinstance(block, ResidualBlock)][-n:]


def _require_identity(block: ResidualBlock) -> None:
    """Raise ``ConfigError`` unless the block gives g(0 + x) = x for every x that can reach it."""
    if type(block.shortcut) is not IdentityShortcut:
        raise ConfigError("the stage has no block yet, and its first one changes the shape; deepen another stage")
    if not isinstance(block.activation, nn.ReLU | nn.Identity):
        raise ConfigError(
            f"a net with activation {type(block.activation).__name__} cannot be deepened: g(g(z)) = g(z) must hold "
            "for the activation behind a sum, as it does for relu alone; use activation='relu' or order='pre'"
        )


def _place_like(block: ResidualBlock, net: Classifier) -> None:
    """Give a new block the device, type, mode and memory format of ``net``.

    In another format it would hand its sums on in that one, and the layers behind it would add up in another order.
    """
    parameters = list(net.parameters())
    turned = any(p.dim() == 4 and not p.is_contiguous() for p in parameters)
    block.to(device=parameters[0].device, dtype=parameters[0].dtype).train(net.training)
    if turned:
        block.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form


def _with_drops(net: Classifier) -> Classifier:
    """``net`` with the drop probabilities that stochastic depth has for its present number of blocks."""
    fresh = build(net.config, seed=0, device="meta")
    for block, like in zip(net.modules(), fresh.modules(), strict=True):
        if isinstance(block, ResidualBlock) and isinstance(like, ResidualBlock):
            block.drop.p = like.drop.p
    return net
