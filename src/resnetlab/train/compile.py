"""Compiling a network for training: on a CPU block by block, and only where a trial finds that faster."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from math import inf
from time import perf_counter
from typing import Any

import torch
from torch import nn

from resnetlab.core.errors import first_line
from resnetlab.models.blocks import ResidualBlock
from resnetlab.train.callbacks import Callback
from resnetlab.train.checkpoint import RunSettings
from resnetlab.train.distributed import sum_over_ranks

COMPILED = "compiled"
"""What the trial of a run decided, in the settings that its checkpoints hold."""
GRAPHS = 64
"""Graphs that torch may keep of one function: one for each kind of block, of all networks of a process."""
ROUNDS = 4
"""Passes of each kind that are timed; the fastest counts, which other programs slowed down least."""


def compile_if_faster(net: nn.Module, one_pass: Callable[[], None], settings: RunSettings, callback: Callback) -> None:
    """Compile the parts of ``net``, in place, if ``one_pass`` forward and backward then takes no longer than before.

    Both are tried in turns, and nothing of that stays: buffers, gradients and the random state are as they were. The
    decision is kept in ``settings``. Compiled sums are rounded otherwise than eager ones, so a run that resumes makes
    no other trial but follows its checkpoint. The ranks add up their times, so they decide alike.

    What torch cannot compile, above all for want of a C++ compiler, is trained eagerly, and a note says why.
    """
    decided = settings.values.get(COMPILED)
    if decided is False:
        callback.on_note("compile: the run began eagerly, as its trial decided, and goes on so")
        return
    with untouched(net):
        # What fails without compiling too is no fault of the compiler.
        one_pass()
        fault = _fault(net, one_pass)
        eager, compiled = (0.0, 0.0) if decided or fault else _times(one_pass)
    if fault:
        so = "eagerly, and no longer to the same bits" if decided else "eagerly"
        callback.on_note(f"compile: training goes on {so}: {fault}")
    elif not decided:
        so = "compiled" if compiled <= eager else "eagerly"
        callback.on_note(
            f"compile: forward and backward of a batch take {compiled:.3g} s compiled and {eager:.3g} s eagerly; "
            f"training goes on {so}"
        )
    settings.values[COMPILED] = not fault and compiled <= eager
    if not settings.values[COMPILED]:
        uncompile_parts(net)


def eagerly() -> AbstractContextManager[object]:
    """Within it compiled parts are called as they were written. So nothing is compiled for evaluation and its odd last
    batch, and its figures are those of the network that a checkpoint gives."""
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def compile_parts(net: nn.Module) -> None:
    """Compile each block of ``net`` by itself, or all of a network that has none; names of parameters stay.

    Blocks of the same shape share one graph, so that the time to compile does not grow with depth. Where the branch is
    dropped at random, with a probability of its own in each block, the branch alone is compiled.
    """
    torch.compiler.config.recompile_limit = max(GRAPHS, torch.compiler.config.recompile_limit)
    for part in _parts(net):
        part.compile(dynamic=False, options=inductor_options())


def uncompile_parts(net: nn.Module) -> None:
    """Call ``net`` and its parts as they were written again."""
    for part in [net, *_parts(net)]:
        part._compiled_call_impl = None


def _parts(net: nn.Module) -> list[nn.Module]:
    blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
    return [block.branch if block.drop.p else block for block in blocks] or [net]


def inductor_options() -> dict[str, Any]:
    """Settings of Inductor, of those that this torch has: random draws as in eager mode, and no masks kept."""
    from torch._inductor import config

    wanted = {"fallback_random": True, "joint_custom_post_pass": _recompute_masks()}
    return {name: value for name, value in wanted.items() if value is not None and hasattr(config, name)}


@cache
def _recompute_masks() -> object | None:
    """A pass over the joint graph that computes the mask y ≤ 0 of a ReLU again on the way back.

    A block ends in a ReLU, whose output y is kept in any case; but it leaves the graph, so the partitioner keeps the
    mask instead, of a byte an element where y has four. Inductor's code for a CPU stores and loads booleans several
    times more slowly than it computes them. None where this torch has no such passes: then the masks are kept, which
    is as right, and the trial tells whether it pays.
    """
    try:
        from torch._inductor.custom_graph_pass import CustomGraphPass
        from torch.utils.checkpoint import CheckpointPolicy

        again = CheckpointPolicy.MUST_RECOMPUTE
    except (ImportError, AttributeError):
        return None

    class RecomputeMasks(CustomGraphPass):
        def __call__(self, graph: torch.fx.Graph) -> None:
            for node in graph.find_nodes(op="call_function", target=torch.ops.aten.le.Scalar):
                node.meta["recompute"] = again

        def uuid(self) -> str:
            return "resnetlab: ReLU masks are recomputed"

    return RecomputeMasks()


@contextmanager
def untouched(net: nn.Module) -> Iterator[None]:
    """Behind it the buffers and gradients of ``net`` and the random state are what they were."""
    buffers = [(buffer, buffer.clone()) for buffer in net.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in net.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for parameter, gradient in gradients:
            parameter.grad = gradient


def _fault(net: nn.Module, one_pass: Callable[[], None]) -> str:
    """Compile the parts of ``net``; why a pass then fails, on this rank or another, and nothing where it does not."""
    fault = ""
    try:
        compile_parts(net)
        one_pass()
    except Exception as error:  # torch, Inductor and the C++ compiler have no error in common
        fault = first_line(getattr(error, "inner_exception", error))
        if "compiler" in fault:
            fault += "; install a C++ compiler such as g++, or name it in the environment variable CXX"
    failed = sum_over_ranks(torch.tensor(float(bool(fault))))
    return fault or ("another rank cannot compile" if failed else "")


def _times(one_pass: Callable[[], None]) -> tuple[float, float]:
    """Seconds of an eager and of a compiled pass in turns, the fastest of ``ROUNDS``, summed over the ranks."""
    times = torch.full((2,), inf, dtype=torch.float64)
    for turn in range(2 * ROUNDS):
        # Eager, compiled, compiled, eager …
        kind = (turn + 1) // 2 % 2
        with nullcontext() if kind else eagerly():
            started = perf_counter()
            one_pass()
            times[kind] = min(times[kind].item(), perf_counter() - started)
    eager, compiled = sum_over_ranks(times).tolist()
    return eager, compiled
