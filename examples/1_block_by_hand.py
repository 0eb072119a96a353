"""A residual block by hand: forward and backward in numpy, checked against torch and against resnetlab.

python examples/1_block_by_hand.py
"""

# %% [markdown]
# # 1. A residual block by hand
#
# Two layers take a[l] to a[l+2]. A plain block ends in g(z[l+2]); a residual block adds its input first:
#
#     z[l+1] = W1 a[l] + b1          a[l+1] = g(z[l+1])
#     z[l+2] = W2 a[l+1] + b2        a[l+2] = g(z[l+2] + S(a[l]))
#
# S is the shortcut: the identity where a[l] and z[l+2] have one length, else zeros behind a[l], or a matrix W_s.

# %%
import numpy as np
import torch

from resnetlab.models.blocks import FcBranch, ResidualBlock
from resnetlab.models.shortcuts import make_shortcut

rng = np.random.default_rng(0)


def relu(z):
    return np.maximum(z, 0)


def forward(a, w, shortcut):
    """All that the block computes, an image a row. ``shortcut`` is the matrix of S, or None for the plain block."""
    z1 = a @ w["W1"].T + w["b1"]
    a1 = relu(z1)
    z2 = a1 @ w["W2"].T + w["b2"]
    total = z2 if shortcut is None else z2 + a @ shortcut.T
    return {"a": a, "z1": z1, "a1": a1, "sum": total, "out": relu(total)}


# %% [markdown]
# ## Backward
#
# The chain rule from the end to the start. The shortcut adds one term to the gradient of a[l]: what arrives at the sum
# goes to the input along two ways, through both layers and through S.


# %%
def backward(kept, w, shortcut, d_out):
    """Gradients of a loss from that of the block's output."""
    d_sum = d_out * (kept["sum"] > 0)
    d_z1 = (d_sum @ w["W2"]) * (kept["z1"] > 0)
    through_layers = d_z1 @ w["W1"]
    through_shortcut = 0 if shortcut is None else d_sum @ shortcut
    return {
        "W1": d_z1.T @ kept["a"],
        "b1": d_z1.sum(0),
        "W2": d_sum.T @ kept["a1"],
        "b2": d_sum.sum(0),
        "a": through_layers + through_shortcut,
        "W_s": d_sum.T @ kept["a"],
    }


def weights(before, after):
    shapes = {"W1": (after, before), "b1": (after,), "W2": (after, after), "b2": (after,)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


# %% [markdown]
# ## The check
#
# `largest` is the largest difference between the numbers by hand and those of resnetlab's block, whose gradients torch
# computes, over the output and every gradient.


# %%
def compare(before, after, option):
    """The largest difference by hand and by machine. ``option``: None plain, "A" zeros, "B" a matrix W_s."""
    w = weights(before, after)
    matrix = rng.normal(size=(after, before)) if option == "B" and before != after else np.eye(after, before)
    shortcut = None if option is None else matrix
    block = ResidualBlock(FcBranch(before, after), make_shortcut(option, before, after, form="fc")).double()
    places = {
        "W1": block.branch.linear1.weight,
        "b1": block.branch.linear1.bias,
        "W2": block.branch.linear2.weight,
        "b2": block.branch.linear2.bias,
    }
    if option == "B" and before != after:
        places["W_s"] = block.shortcut.linear.weight
    with torch.no_grad():
        for name, parameter in places.items():
            parameter.copy_(torch.from_numpy((w | {"W_s": matrix})[name]))
    a, d_out = rng.normal(size=(5, before)), rng.normal(size=(5, after))
    given = torch.from_numpy(a).requires_grad_()
    out = block(given)
    out.backward(torch.from_numpy(d_out))
    kept = forward(a, w, shortcut)
    by_hand = backward(kept, w, shortcut, d_out)
    by_machine = {name: parameter.grad for name, parameter in places.items()} | {"a": given.grad}
    pairs = [(kept["out"], out.detach()), *((by_hand[name], gradient) for name, gradient in by_machine.items())]
    return max(float(np.abs(ours - theirs.numpy()).max()) for ours, theirs in pairs)


CASES = {
    "plain, 6 to 6": (6, 6, None),
    "identity, 6 to 6": (6, 6, "A"),
    "zero padding, 6 to 9": (6, 9, "A"),
    "W_s, 6 to 9": (6, 9, "B"),
    "W_s, 6 to 4": (6, 4, "B"),
}
largest = {name: compare(*case) for name, case in CASES.items()}
for name, difference in largest.items():
    print(f"{name:22} largest difference, output and all gradients: {difference:.1e}")

# %% [markdown]
# ## Zero weights
#
# With W = 0 and b = 0 the residual block gives g(0 + a[l]) = a[l], since a[l] came out of a ReLU and is not negative:
# it is the identity. The plain block gives g(0) = 0: everything is lost, and no gradient comes back.

# %%
silent = {name: 0 * value for name, value in weights(6, 6).items()}
a = relu(rng.normal(size=(5, 6)))
ones = np.ones((5, 6))
residual_out, plain_out = (forward(a, silent, s)["out"] for s in (np.eye(6), None))
residual_back, plain_back = (backward(forward(a, silent, s), silent, s, ones)["a"] for s in (np.eye(6), None))
identity = bool((residual_out == a).all())
print("\nW = 0, b = 0:")
print(f"the residual block returns its input: {identity}; the largest value of the plain block: {plain_out.max():g}")
reached = {"residual": np.abs(residual_back).sum(), "plain": np.abs(plain_back).sum()}
print(f"gradient that reaches the input: residual {reached['residual']:g}, plain {reached['plain']:g}")
print("\nA question to try: replace relu by np.tanh, its slope by 1 - tanh². Is the silent block still the identity?")
