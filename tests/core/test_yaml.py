"""Settings in YAML: numbers as on the command line, merge keys, and no short text that takes long or much memory."""

import os

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from resnetlab.core.config import MOST_YAML, _loader, parse_yaml, read_yaml, yaml_text
from resnetlab.core.errors import DataError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10), ("08", 8), ("-007", -7), ("0", 0), ("+3", 3), ("1_000", 1000), ("0x1F", 31), ("0b11", 3),
        ("1e-3", 1e-3), ("1.5", 1.5), (".5", 0.5), ("2.", 2.0), ("1E5", 1e5),
        ("1:30", "1:30"), ("1:30.5", "1:30.5"), ("0o10", "0o10"), ("'010'", "010"), ("", None),
        ("9223372036854775807", 2**63 - 1),
    ],
)  # fmt: skip
def test_numbers_are_those_of_the_command_line(text, value):
    found = parse_yaml(text, "x")
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["0x" + "f" * 4000, "9" * 5000, "9223372036854775808", "-9223372036854775808"])
def test_number_beyond_63_bits_is_refused_by_its_file(text):
    with pytest.raises(DataError, match=r"x\.yaml cannot be read: the number .*beyond 2\^63") as refused:
        parse_yaml(f"seed: {text}", "x.yaml")
    assert len(str(refused.value)) < 200


def test_merge_keys_are_read_and_own_keys_win():
    text = "base: &b {epochs: 8, lr: 0.1}\nmore: &m {flip: true}\ntraining: {<<: [*b, *m], epochs: 2}\n"
    assert parse_yaml(text, "x")["training"] == {"epochs": 2, "lr": 0.1, "flip": True}
    with pytest.raises(DataError, match="the key 'epochs' stands twice"):
        parse_yaml("base: &b {epochs: 8}\ntraining: {<<: *b, epochs: 2, epochs: 3}", "x")


@pytest.mark.parametrize(("hashed", "most"), [(hash, 100), (bool, None)])
def test_each_key_is_found_by_its_hash_and_not_looked_for_among_all_before_it(hashed, most):
    """20,000 keys took twelve seconds; comparisons are counted here. The control has one hash for all of them."""
    compared = [0]

    class Key(str):
        def __hash__(self):
            return hashed(str(self))

        def __eq__(self, other):
            compared[0] += 1
            return str(self) == str(other)

    class Loader(_loader()):
        def construct_object(self, node, deep=False):
            return Key(super().construct_object(node, deep))

    count = 1000
    loader = Loader("".join(f"k{number}: {number}\n" for number in range(count)))
    assert len(loader.construct_mapping(loader.get_single_node())) == count
    assert compared[0] < most if most else compared[0] > count**2 / 4


LAUGHS = {
    "aliases": "\n".join(
        ["a0: &a0 x", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)), "model: *a19"]
    ),
    "merges": "\n".join(["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 40))]),
    "itself": "a: &a [*a]",
    "itself, merged": "a: &a {<<: *a}",
    "depth": "[" * 5000,
    "depth of lines": "- " * 5000,
    "a set": "? [a, b]\n: 3",
}


@pytest.mark.parametrize("name", LAUGHS)
def test_short_text_that_stands_for_much_is_refused(name):
    """For what it is and before it is worked out, which would not end."""
    told = "more than 50 values lie in one another" if "depth" in name else "cannot be read"
    with pytest.raises(DataError, match=told):
        parse_yaml(LAUGHS[name], "x")


def test_long_file_and_what_is_no_file_are_refused(tmp_path):
    (tmp_path / "long.yaml").write_bytes(b"# " + b"x" * MOST_YAML)
    with pytest.raises(DataError, match="more than 262,144 bytes"):
        read_yaml(tmp_path / "long.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(DataError, match="it is no file"):
        read_yaml(tmp_path / "pipe.yaml")


def test_message_is_one_line():
    with pytest.raises(DataError) as refused:
        parse_yaml("a: b: c", "x.yaml")
    assert str(refused.value).isprintable()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9) | st.sampled_from(["08", "1e-3", "0o7", "1:30", "1_0", ".5", "0x1", "<<", "=", "no", "~"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc<=", max_size=3), inner, max_size=3),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_what_is_written_is_read_to_the_same_value(value):
    assert parse_yaml(yaml_text(value), "x") == value


def test_plain_dump_would_not_be():
    """The control: PyYAML leaves 08 and 1e-3 unquoted, which are numbers here."""
    assert [parse_yaml(yaml.safe_dump(text), "x") for text in ("08", "1e-3")] == [8, 1e-3]
