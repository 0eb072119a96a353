"""Errors, registry, randomness and statistics: the ground floor's small rooms."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from resnetlab.core.errors import ConfigError, require_choice, require_literals, unknown_name
from resnetlab.core.randomness import derive_seed, generator
from resnetlab.core.stats import paired_interval, sample
from resnetlab.models.registry import Registry

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=8)


def test_unknown_name_gives_the_nearest_or_all():
    assert str(unknown_name("model", "resnet35", ["resnet34", "vgg19"])) == (
        "unknown model 'resnet35'; did you mean 'resnet34'?"
    )
    assert str(unknown_name("pad", "x", ["b", "a"])) == "unknown pad 'x'; known: a, b"


@dataclass
class Chosen:
    pad: Literal["append", "center"] = "append"
    option: Literal["A", "B"] | None = None
    every: int | Literal["auto"] = "auto"
    free: str = "anything"


def test_require_literals_takes_what_the_fields_say():
    require_literals(Chosen())
    require_literals(Chosen(pad="center", option="B", every=4))
    for wrong in ({"pad": "centre"}, {"option": "Z"}, {"pad": None}):
        with pytest.raises(ConfigError, match=f"unknown {next(iter(wrong))} "):
            require_literals(Chosen(**wrong))


def test_require_choice_takes_the_allowed_alone():
    require_choice("pad", "append", ("append", "center"))
    with pytest.raises(ConfigError, match="did you mean 'append'"):
        require_choice("pad", "apend", ("append", "center"))


def test_registry_matches_wildcards_in_order_and_answers_with_the_nearest():
    registry = Registry("model", {"b1": 1, "a": 2, "b2": 3})
    assert registry.matching("b*") == ["b1", "b2"]
    assert (registry["a"], len(registry), list(registry)) == (2, 3, ["b1", "a", "b2"])
    with pytest.raises(ConfigError, match="b1"):
        registry["b"]


def test_derived_seeds_are_those_of_sha256_on_every_machine():
    # printf '0\x1forder\x1f1' | sha256sum | head -c 16
    import hashlib

    assert derive_seed(0, "order", 1) == int(hashlib.sha256(b"0\x1forder\x1f1").hexdigest()[:16], 16)
    assert derive_seed(0, "order", 1) != derive_seed(0, "order", 2) != derive_seed(1, "order", 2)
    assert derive_seed(1, "23") != derive_seed(12, "3")


def test_generator_depends_on_seed_and_purpose_and_on_nothing_else():
    np.random.default_rng(7).random()
    first = generator(3, "parameter", "stem").standard_normal(4)
    assert np.array_equal(first, generator(3, "parameter", "stem").standard_normal(4))
    assert not np.array_equal(first, generator(3, "parameter", "head").standard_normal(4))
    assert not np.array_equal(first, generator(4, "parameter", "stem").standard_normal(4))


@given(VALUES)
def test_sample_equals_numpy(values):
    found = sample(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert found.sd == pytest.approx(np.std(values, ddof=1), abs=1e-9)


def test_sample_of_one_has_no_deviation():
    assert sample([2.0]).sd is None


@given(VALUES, st.sampled_from([0.9, 0.95, 0.99]))
def test_paired_interval_equals_scipy(values, level):
    other = [value * 0.5 + i * i for i, value in enumerate(values)]
    found = paired_interval(values, other, level)
    expected = reference.ttest_rel(values, other).confidence_interval(level)
    assert found.mean == pytest.approx(np.mean(np.subtract(values, other)), abs=1e-9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-6)


def test_paired_interval_uses_the_pairing():
    """Two values that move together differ surely, though each varies widely."""
    assert paired_interval([1.0, 50.0, 99.0], [0.0, 49.01, 98.0]).low > 0
    assert paired_interval([1.0, 50.0, 99.0], [49.01, 98.0, 0.0]).low < 0


def test_paired_interval_of_one_pair_has_no_bounds():
    found = paired_interval([3.0], [1.0])
    assert (found.mean, found.low, found.high) == (2.0, None, None)


def test_paired_interval_of_unequal_numbers_is_refused():
    with pytest.raises(ValueError, match="2 and 1"):
        paired_interval([1.0, 2.0], [1.0])
