"""Habits of torchvision and timm: what means the same is taken, and what does not is answered with what to say."""

import copy
import pickle

import pytest
import torch

from resnetlab.core.errors import ConfigError
from resnetlab.models.habits import ANSWERS, ATTRIBUTES, HEADS, SETTINGS
from resnetlab.models.recompute import SegmentedStage
from resnetlab.models.weights import export_weights
from resnetlab.models.zoo import create_model


@pytest.fixture
def net():
    return create_model("cifar_resnet8")


@pytest.mark.parametrize(
    ("name", "theirs", "ours"),
    [
        ("resnet18", {"drop_path_rate": 0.1}, {"stochastic_depth": 0.1}),
        ("resnet18", {"drop_rate": 0.2}, {"head_dropout": 0.2}),
        ("vgg11", {"drop_rate": 0.2}, {"dropout": 0.2}),
        ("resnet50", {"width_per_group": 128, "cardinality": 2}, {"base_width": 128, "groups": 2}),
        ("resnet18", {"zero_init_last": True, "img_size": 64}, {"zero_init_residual": True, "image_size": 64}),
    ],
)
def test_settings_that_mean_the_same_are_taken(name, theirs, ours):
    assert create_model(name, device="meta", **theirs).config == create_model(name, device="meta", **ours).config


def test_settings_that_do_not_are_answered():
    for setting, answer in ANSWERS.items():
        with pytest.raises(ConfigError, match=setting) as refused:
            create_model("resnet18", **{setting: "x"})
        assert answer in str(refused.value)
    with pytest.raises(ConfigError, match="vgg11 has no stochastic_depth"):
        create_model("vgg11", drop_path_rate=0.1)
    assert not SETTINGS.keys() & ANSWERS.keys()


def test_dropout_before_the_head_draws_in_training_alone():
    net = create_model("cifar_resnet8", drop_rate=0.5)
    features = torch.ones(2, 64, 8, 8)
    given = net.train().forward_head(features, pre_logits=True)
    assert set(given.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(net.eval().forward_head(features, pre_logits=True), torch.ones(2, 64))
    assert torch.equal(net.forward_head(features), net.head(torch.ones(2, 64)))
    with pytest.raises(ConfigError, match="head_dropout"):
        create_model("cifar_resnet8", drop_rate=1.0)


def test_without_pooling_the_map_itself_comes_out(net):
    x = torch.randn(2, 3, 8, 8)
    unpooled = create_model("cifar_resnet8", num_classes=0, global_pool="").eval()
    expected = net.eval().forward_features(x)
    assert torch.equal(unpooled(x), expected)
    assert torch.equal(net.reset_classifier(0, "")(x), expected)
    assert net.reset_classifier(5, "avg")(x).shape == (2, 5)
    for wrong in ({"global_pool": ""}, {"num_classes": 0, "global_pool": "max"}):
        with pytest.raises(ConfigError, match=r"global_pool.*num_classes=0"):
            create_model("cifar_resnet8", **wrong)


def test_classifier_and_number_of_classes(net):
    assert net.get_classifier() is net.head
    assert net.num_classes == 10
    assert net.reset_classifier(7).num_classes == net.get_classifier().out_features == 7


def test_gradient_checkpointing_is_recomputing_and_ends(net):
    before = list(net.state_dict())
    net.set_grad_checkpointing()
    assert all(isinstance(stage, SegmentedStage) for stage in net.stages)
    net.set_grad_checkpointing(False)
    assert not any(isinstance(stage, SegmentedStage) for stage in net.stages)
    assert list(net.state_dict()) == before


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_of_others_are_answered_and_are_not_there(net, name):
    assert not hasattr(net, name)
    with pytest.raises(AttributeError, match=name) as missing:
        getattr(net, name)
    assert ATTRIBUTES[name] in str(missing.value)


def test_an_unknown_attribute_is_answered_as_torch_does(net):
    with pytest.raises(AttributeError, match="'ResNet' object has no attribute 'nonsense'"):
        net.nonsense  # noqa: B018


@pytest.mark.parametrize("name", HEADS)
def test_no_head_is_put_where_no_forward_pass_finds_it(net, name):
    with pytest.raises(AttributeError, match="reset_classifier"):
        setattr(net, name, torch.nn.Linear(64, 5))


@pytest.mark.parametrize("strict", [True, False])
def test_names_of_another_project_are_refused_with_the_way_to_load_them(net, strict):
    theirs = export_weights(create_model("resnet18"), "torchvision")
    with pytest.raises(RuntimeError, match=r"conv1.weight.*load_weights"):
        create_model("resnet18").load_state_dict(theirs, strict=strict)
    # Some names of ours, and others: torch's own answer where it was asked not to be strict.
    mixed = {"head.bias": torch.ones(10), "other": torch.ones(1)}
    assert net.load_state_dict(mixed, strict=False).unexpected_keys == ["other"]
    assert torch.equal(net.head.bias, torch.ones(10))
    with pytest.raises(RuntimeError, match="size mismatch"):
        net.load_state_dict({"head.bias": torch.ones(3)}, strict=False)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cifar_resnet8", {"stochastic_depth": 0.1}),
        ("cifar_preact_resnet20", {}),
        ("cifar_preact_resnet20", {"stride_at": "last", "depths": (2, 2, 2)}),
        ("mlp_resnet8", {}),
        ("seresnet18", {}),
    ],
)
def test_copies_pickles_and_compiled_forms_give_the_same_logits(name, options):
    net = create_model(name, num_classes=3, drop_rate=0.1, **options).eval()
    side = net.config.image_size if name.startswith("mlp") else 32
    x = torch.randn(2, net.config.in_chans, side, side)
    expected = net(x)
    forms = [copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net)), torch.jit.script(net)]
    forms.append(torch.compile(net, backend="eager", fullgraph=True))
    forms.append(torch.export.export(net, (x,)).module())
    for form in forms:
        torch.testing.assert_close(form(x), expected)
