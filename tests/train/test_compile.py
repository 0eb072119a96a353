"""Compiling for training: what is compiled, the trial that decides it, and that nothing but time depends on the trial.

Most of these tests compile with a backend that runs the graphs as they are, so that no C++ compiler is needed.
"""

import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import CheckpointPolicy

from resnetlab.core.serialize import as_plain
from resnetlab.data.config import AugmentConfig
from resnetlab.models.zoo import create_model
from resnetlab.train import compile as compiling
from resnetlab.train.checkpoint import RunSettings, read_checkpoint
from resnetlab.train.compile import COMPILED, compile_if_faster, compile_parts, inductor_options, uncompile_parts
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import fit
from resnetlab.train.recipe import Recipe
from resnetlab.train.run import compiled, run_recipe
from tests.train.runs import DYNAMO, Notes, StopAfter, same_tensors, tiny_net, without_time

pytestmark = pytest.mark.filterwarnings(DYNAMO)
CONFIG = TrainConfig(epochs=2, batch_size=16, compile=True, save_every=4, augment=AugmentConfig(crop_padding=1))


class Backend:
    """Runs each graph as it is, after a wait: a compiled function that is slow, or one of which only calls count.

    With ``factor`` its outputs are wrong on purpose, so that it shows in the bits whether a run was compiled.
    """

    def __init__(self) -> None:
        self.graphs = 0
        self.shapes: set[tuple[int, ...]] = set()
        self.calls = 0
        self.wait = 0.0
        self.factor = 1.0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        self.graphs += 1
        self.shapes |= {tuple(value.shape) for value in inputs if isinstance(value, torch.Tensor) and value.dim() == 4}

        def run(*values):
            self.calls += 1
            time.sleep(self.wait)
            return [value * self.factor for value in graph.forward(*values)]

        return run


@pytest.fixture
def backend(monkeypatch) -> Iterator[Backend]:
    made, compile_net = Backend(), nn.Module.compile

    def compile_with(net: nn.Module, *, dynamic: bool, options: dict[str, object]) -> None:
        assert options.keys() <= inductor_options().keys()
        compile_net(net, backend=made, dynamic=dynamic)

    monkeypatch.setattr(nn.Module, "compile", compile_with)
    torch.compiler.reset()
    yield made
    torch.compiler.reset()


@pytest.fixture
def eager_is_slow(monkeypatch) -> None:
    """What is not compiled waits a little in each trial."""
    times = compiling._times

    def slower(one_pass):
        eager, fast = times(one_pass)
        return eager + 1, fast

    monkeypatch.setattr(compiling, "_times", slower)


def batch(size: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, 1, 8, 8), torch.arange(size) % 3


def gradients(net: nn.Module) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    images, labels = batch(16)
    net.train().zero_grad()
    F.cross_entropy(net(images), labels).backward()
    return {name: parameter.grad for name, parameter in net.named_parameters()}


@pytest.mark.parametrize("shortcut", ["A", None])
def test_number_of_graphs_does_not_grow_with_depth(backend, shortcut):
    found = []
    for depth in (20, 110):
        torch.compiler.reset()
        backend.graphs = 0
        net = create_model(f"cifar_resnet{depth}", in_chans=1, num_classes=3, shortcut=shortcut).train()
        compile_parts(net)
        images, labels = batch()
        F.cross_entropy(net(images), labels).backward()
        found.append(backend.graphs)
    # A stage's first block and all others, and the first stage has no other kind.
    assert found == [5, 5]


def test_branches_that_are_dropped_each_with_its_own_probability_share_graphs_too(backend):
    net = create_model("cifar_resnet20", in_chans=1, num_classes=3, stochastic_depth=0.5).train()
    compile_parts(net)
    net(batch()[0]).sum().backward()
    assert backend.graphs == 5


def test_a_network_without_blocks_is_compiled_whole(backend):
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.flatten(1))

    net = Own()
    compile_parts(net)
    net(batch()[0])
    assert backend.graphs == 1
    uncompile_parts(net)
    net(batch(5)[0])
    assert (backend.graphs, backend.calls) == (1, 1)


def test_names_and_keys_stay_and_copies_are_not_compiled(backend):
    plain, net = tiny_net(), tiny_net()
    compile_parts(net)
    assert [name for name, _ in net.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert list(net.state_dict()) == list(plain.state_dict())
    deepcopy(net)(batch()[0])
    assert backend.graphs == 0


def test_evaluation_compiles_nothing_whatever_its_last_batch(data, backend, eager_is_slow):
    """There are 40 images of test and 96 of training, in batches of 16: the last one of test has 8."""
    fit(tiny_net(), data, CONFIG, seed=0)
    assert backend.graphs == 3
    assert {shape[0] for shape in backend.shapes if shape[2:] != (3, 3)} == {16}


def test_slow_compiled_code_is_refused_with_both_figures(data, backend, tmp_path):
    backend.wait, notes, net, plain = 0.02, Notes(), tiny_net(), tiny_net()
    history = fit(net, data, CONFIG, seed=0, out=tmp_path, callback=notes)
    (note,) = notes.notes
    assert note.startswith("compile: forward and backward of a batch take 0.")
    assert note.endswith("s eagerly; training goes on eagerly")
    # Three kinds of block: one pass that compiles them, and those that were timed.
    assert backend.calls == 3 * (1 + compiling.ROUNDS)
    assert without_time(history) == without_time(fit(plain, data, replace(CONFIG, compile=False), seed=0))
    assert same_tensors(net, plain)
    assert read_checkpoint(tmp_path / "last").settings.values[COMPILED] is False


def test_faster_compiled_code_is_taken(data, backend, eager_is_slow, tmp_path):
    notes = Notes()
    fit(tiny_net(), data, CONFIG, seed=0, out=tmp_path, callback=notes)
    assert notes.notes[0].endswith("training goes on compiled")
    assert backend.calls == 3 * (1 + compiling.ROUNDS + 12)
    assert read_checkpoint(tmp_path / "last").settings.values[COMPILED] is True


@pytest.mark.parametrize("wait", [0.0, 0.02], ids=["fast", "slow"])
def test_trial_leaves_everything_as_it_was(backend, wait):
    backend.wait = wait
    net = tiny_net(dropout=0.3).train()
    gradients(net)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    kept = {name: (parameter.grad, parameter.grad.clone()) for name, parameter in net.named_parameters()}
    random = torch.get_rng_state()

    def one_pass() -> None:
        images, labels = batch(16)
        F.cross_entropy(net(images), labels).backward()
        net.zero_grad(set_to_none=True)

    compile_if_faster(net, one_pass, RunSettings(), Notes())
    assert backend.calls
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    for name, parameter in net.named_parameters():
        assert parameter.grad is kept[name][0]
        assert torch.equal(parameter.grad, kept[name][1])


def test_a_trial_that_is_broken_off_leaves_everything_too(backend):
    net = tiny_net().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}

    def one_pass() -> None:
        net(batch()[0]).sum().backward()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_if_faster(net, one_pass, RunSettings(), Notes())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert backend.graphs == 0


@pytest.mark.parametrize("first", [True, False], ids=["compiled", "eager"])
def test_resumed_run_follows_the_decision_that_it_began_with(data, backend, monkeypatch, tmp_path, first):
    """Compiled code is wrong here on purpose, so that bits tell what a run did; and at the resume the trial would
    decide the other way."""
    backend.factor = 1.5

    def decide(compiled_is_faster: bool) -> None:
        monkeypatch.setattr(compiling, "_times", lambda _: (2.0, 1.0) if compiled_is_faster else (1.0, 2.0))

    decide(first)
    whole = tiny_net()
    fit(whole, data, CONFIG, seed=0)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_net(), data, CONFIG, seed=0, out=tmp_path, callback=StopAfter(9))
    decide(not first)
    resumed, other = tiny_net(), tiny_net()
    fit(resumed, data, CONFIG, seed=0, out=tmp_path)
    assert same_tensors(resumed, whole)
    fit(other, data, CONFIG, seed=0)
    assert not same_tensors(other, whole)


def test_checkpoints_of_compiled_and_eager_runs_are_each_others(data, backend, eager_is_slow, tmp_path):
    """With graphs that run as they are, to the bits of one eager run."""
    expected = tiny_net()
    fit(expected, data, replace(CONFIG, compile=False), seed=0)
    for before, after in ((True, False), (False, True)):
        out, net = tmp_path / str(before), tiny_net()
        with pytest.raises(KeyboardInterrupt):
            fit(tiny_net(), data, replace(CONFIG, compile=before), seed=0, out=out, callback=StopAfter(9))
        fit(net, data, replace(CONFIG, compile=after), seed=0, out=out)
        assert same_tensors(net, expected)
        assert read_checkpoint(out / "last").settings.values.get(COMPILED) is (True if after else None)


def test_what_cannot_be_compiled_is_trained_eagerly_and_said(data, backend, monkeypatch, tmp_path):
    def fails(*_: object) -> None:
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(Backend, "__call__", fails)
    net, plain, notes = tiny_net(), tiny_net(), Notes()
    fit(net, data, CONFIG, seed=0, callback=notes)
    fit(plain, data, replace(CONFIG, compile=False), seed=0)
    assert same_tensors(net, plain)
    (note,) = notes.notes
    assert "training goes on eagerly" in note
    assert note.endswith("install a C++ compiler such as g++, or name it in the environment variable CXX")


@pytest.mark.parametrize(("theirs", "expected"), [([0.0, 5.0], False), ([5.0, 0.0], True)])
def test_ranks_decide_by_the_sum_of_their_times(backend, monkeypatch, theirs, expected):
    """As if another rank had these times, eager and compiled, and no fault."""

    def add(values: torch.Tensor) -> torch.Tensor:
        return values + torch.tensor(theirs, dtype=values.dtype) if values.dim() else values

    monkeypatch.setattr(compiling, "sum_over_ranks", add)
    net, settings = tiny_net().train(), RunSettings()
    compile_if_faster(net, lambda: net(batch()[0]).sum().backward(), settings, Notes())
    assert settings.values == {COMPILED: expected}


def test_no_rank_compiles_where_one_cannot(backend, monkeypatch):
    monkeypatch.setattr(compiling, "sum_over_ranks", lambda values: values + 1)
    net, settings, notes = tiny_net().train(), RunSettings(), Notes()
    compile_if_faster(net, lambda: net(batch()[0]).sum().backward(), settings, notes)
    assert settings.values == {COMPILED: False}
    assert notes.notes == ["compile: training goes on eagerly: another rank cannot compile"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_blocks_train_as_eager_ones_do(monkeypatch):
    """Twelve steps in float64, with the partition that Inductor makes but without its code: to 10⁻¹⁰. In float32 a sum
    that is nearly zero comes to lie on the other side of a ReLU within some steps."""
    compile_net = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda net, **_: compile_net(net, dynamic=False, backend="aot_eager_decomp_partition")
    )
    torch.compiler.reset()
    nets = [tiny_net().double().train() for _ in range(2)]
    compile_parts(nets[1])
    losses = []
    for net in nets:
        torch.manual_seed(1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        for _ in range(12):
            images, labels = batch(16)
            loss = F.cross_entropy(net(images.double()), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses[:12] == pytest.approx(losses[12:], rel=1e-10)
    theirs = nets[1].state_dict()
    for name, value in nets[0].state_dict().items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-10, atol=1e-10, msg=name)
    torch.compiler.reset()


def test_masks_of_relus_and_nothing_else_are_to_be_computed_again():
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    mask = graph.call_function(torch.ops.aten.le.Scalar, (x, 0))
    other = graph.call_function(torch.ops.aten.relu.default, (x,))
    inductor_options()["joint_custom_post_pass"](graph)
    assert mask.meta["recompute"] is CheckpointPolicy.MUST_RECOMPUTE
    assert "recompute" not in other.meta


def test_record_says_whether_the_run_was_compiled(backend, eager_is_slow, tmp_path):
    training = replace(CONFIG, epochs=1, max_steps=2, batch_size=64)
    record = run_recipe(Recipe(model="cifar_resnet8", training=training), tmp_path, page=False)
    assert record.environment[COMPILED] is True
    assert compiled(RunSettings()) == {}
    assert as_plain(record)["recipe"]["training"]["compile"] is True


def test_torch_without_the_hooks_of_inductor_compiles_without_them(monkeypatch):
    compiling._recompute_masks.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "torch._inductor.custom_graph_pass", None)
    assert inductor_options() == {"fallback_random": True}
    compiling._recompute_masks.cache_clear()
    monkeypatch.undo()
    assert inductor_options().keys() == {"fallback_random", "joint_custom_post_pass"}


def compile_for_real(net: nn.Module) -> nn.Module:
    compile_parts(net)
    return net


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_gradients_of_compiled_blocks_are_those_of_eager_ones():
    """Within rounding: 10⁻⁴ of the largest number of each gradient. What is dropped at random is the same."""
    torch.compiler.reset()
    eager, fast = gradients(tiny_net(dropout=0.3)), gradients(compile_for_real(tiny_net(dropout=0.3)))
    other = gradients(tiny_net(dropout=0.4))
    for name, expected in eager.items():
        scale = expected.abs().max()
        assert (fast[name] - expected).abs().max() <= 1e-4 * scale, name
        assert (other[name] - expected).abs().max() > 1e-4 * scale, name


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_no_mask_is_kept_for_the_way_back(monkeypatch):
    def kept(net: nn.Module) -> list[torch.dtype]:
        torch.compiler.reset()
        compile_parts(net.train())
        found = []
        with torch.autograd.graph.saved_tensors_hooks(lambda value: found.append(value.dtype) or value, lambda v: v):
            net(batch(16)[0])
        return found

    assert torch.bool not in kept(tiny_net())
    monkeypatch.setattr(compiling, "_recompute_masks", lambda: None)
    assert torch.bool in kept(tiny_net())


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_run_resumes_to_the_same_bits(data, eager_is_slow, tmp_path):
    whole, resumed, plain, notes = tiny_net(), tiny_net(), tiny_net(), Notes()
    torch.compiler.reset()
    fit(whole, data, CONFIG, seed=0, callback=notes)
    assert notes.notes[0].endswith("training goes on compiled")
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_net(), data, CONFIG, seed=0, out=tmp_path, callback=StopAfter(9))
    # As in another process: nothing is left of what was compiled.
    torch.compiler.reset()
    fit(resumed, data, CONFIG, seed=0, out=tmp_path)
    assert same_tensors(resumed, whole)
    fit(plain, data, replace(CONFIG, compile=False), seed=0)
    assert not same_tensors(plain, whole)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_without_a_compiler_the_run_is_trained_eagerly(data, monkeypatch, tmp_path):
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch.compiler.reset()
    notes = Notes()
    with config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        fit(tiny_net(), data, replace(CONFIG, epochs=1), seed=0, callback=notes)
    (note,) = notes.notes
    assert note.startswith("compile: training goes on eagerly: ")
    assert "install a C++ compiler such as g++" in note
