"""A residual block by hand: forward and backward in numpy, checked against torch and against resnetlab.

python examples/1_block_by_hand.py
"""

# %% [markdown]
# # 1. A residual block by hand
#
# A layer takes numbers a, weighs them by a matrix W, adds a bias b, and applies an activation g, here ReLU:
# g(z) = max(z, 0). A block is two layers. It takes a[l], what layer l gave, to a[l+2]:
#
#     z[l+1] = W1 a[l] + b1          a[l+1] = g(z[l+1])
#     z[l+2] = W2 a[l+1] + b2        a[l+2] = g(z[l+2])                   a plain block
#                                    a[l+2] = g(z[l+2] + S(a[l]))         a residual block
#
# With x for a[l], the branch F(x) for z[l+2] and H(x) for the sum, that is H(x) = F(x) + S(x): the layers learn only
# the rest, F = H - S. S is the shortcut. Whatever it is, it is a product with a matrix: S(a) = W_s a, where W_s is
#
# - the identity matrix, where a[l] and z[l+2] are of one length;
# - the same with rows of zeros below it, where z[l+2] is longer: "zero padding" (option A of the paper);
# - a matrix that is learned like W1 and W2, where the lengths differ (option B) or everywhere (option C).
#
# For m images, texts write a[l] with n rows and m columns. Here, as in torch, an image is a row: a has the shape
# (m, n), and W a becomes a @ W.T. W_s has n' rows and n columns in both, n' being the length of z[l+2].

# %%
import numpy as np
import torch
from torch.nn import functional as F

from resnetlab.models.blocks import FcBranch, ResidualBlock
from resnetlab.models.shortcuts import MatrixShortcut, make_shortcut

rng = np.random.default_rng(0)


def relu(z):
    return np.maximum(z, 0)


def forward(a, w):
    """All that a block computes from ``a``. Without a "W_s" among its weights ``w`` it is the plain one."""
    z1 = a @ w["W1"].T + w["b1"]
    a1 = relu(z1)
    z2 = a1 @ w["W2"].T + w["b2"]
    total = z2 + a @ w["W_s"].T if "W_s" in w else z2
    return {"a": a, "z1": z1, "a1": a1, "sum": total, "out": relu(total)}


# %% [markdown]
# ## Backward
#
# d_v stands for the gradient of a loss with respect to v. We get d_out from the layers behind and go back by the chain
# rule. A ReLU lets a gradient pass where its input was positive. The shortcut adds one term: what arrives at the sum
# reaches the input by two ways, through both layers and through S.


# %%
def backward(kept, w, d_out):
    """The gradients, by name, from what ``forward`` has kept and the gradient of the block's output."""
    d_sum = d_out * (kept["sum"] > 0)
    d_z1 = (d_sum @ w["W2"]) * (kept["z1"] > 0)
    through_layers = d_z1 @ w["W1"]
    through_shortcut = d_sum @ w["W_s"] if "W_s" in w else 0
    return {
        "W1": d_z1.T @ kept["a"],
        "b1": d_z1.sum(0),
        "W2": d_sum.T @ kept["a1"],
        "b2": d_sum.sum(0),
        "W_s": d_sum.T @ kept["a"],
        "a": through_layers + through_shortcut,
    }


# %% [markdown]
# ## The check
#
# The same block twice more: written in torch, and as resnetlab has it. In both, torch finds the gradients by itself.


# %%
def in_torch(a, w, d_out):
    """Output and gradients of the block written with torch's operations."""
    t = {name: torch.from_numpy(value).requires_grad_() for name, value in (w | {"a": a}).items()}
    z2 = F.linear(F.relu(F.linear(t["a"], t["W1"], t["b1"])), t["W2"], t["b2"])
    out = F.relu(z2 + F.linear(t["a"], t["W_s"]) if "W_s" in t else z2)
    out.backward(torch.from_numpy(d_out))
    return {"out": out.detach().numpy()} | {name: tensor.grad.numpy() for name, tensor in t.items()}


def in_resnetlab(a, w, d_out, option):
    """Output and gradients of resnetlab's block with these weights; ``option`` None is the plain one."""
    after, before = w["W1"].shape
    block = ResidualBlock(FcBranch(before, after), make_shortcut(option, before, after, form="fc")).double()
    one, two = block.branch.linear1, block.branch.linear2
    learned = {"W1": one.weight, "b1": one.bias, "W2": two.weight, "b2": two.bias}
    if isinstance(block.shortcut, MatrixShortcut):
        learned["W_s"] = block.shortcut.linear.weight
    with torch.no_grad():
        for name, parameter in learned.items():
            parameter.copy_(torch.from_numpy(w[name]))
    given = torch.from_numpy(a).requires_grad_()
    out = block(given)
    out.backward(torch.from_numpy(d_out))
    return {"out": out.detach().numpy()} | {name: p.grad.numpy() for name, p in (learned | {"a": given}).items()}


def difference(ours, theirs):
    """The largest difference between two numbers of one place, over the output and every gradient."""
    return max(float(np.abs(ours[name] - value).max()) for name, value in theirs.items())


def weights(before, after, option=None):
    """Random weights from ``before`` to ``after`` units."""
    shapes = {"W1": (after, before), "b1": (after,), "W2": (after, after), "b2": (after,)}
    w = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    if option == "C" or (option == "B" and before != after):
        w["W_s"] = rng.normal(size=(after, before))
    elif option is not None:
        w["W_s"] = np.eye(after, before)
    return w


CASES = {
    "plain, 6 to 6": (6, 6, None),
    "identity, 6 to 6": (6, 6, "A"),
    "zero padding, 6 to 9": (6, 9, "A"),
    "learned W_s, 6 to 9": (6, 9, "B"),
    "learned W_s, 6 to 4": (6, 4, "B"),
    "learned W_s, 6 to 6": (6, 6, "C"),
}
IMAGES = 64
largest = {}
print("Largest difference from the block by hand, over the output and every gradient:\n")
print(f"{'':22}{'torch':>10}{'resnetlab':>12}")
for name, (before, after, option) in CASES.items():
    w = weights(before, after, option)
    a, d_out = rng.normal(size=(IMAGES, before)), rng.normal(size=(IMAGES, after))
    kept = forward(a, w)
    ours = {"out": kept["out"]} | backward(kept, w, d_out)
    largest[name] = difference(ours, in_torch(a, w, d_out)), difference(ours, in_resnetlab(a, w, d_out, option))
    print("{:22}{:10.0e}{:12.0e}".format(name, *largest[name]))
print("\nThat is rounding: a number of 64 bits has 16 digits, and the last depend on the order of a sum.")

# %% [markdown]
# A check that cannot fail shows nothing, so let it fail, in two ways, for the last block above.

# %%
no_way = {name: value for name, value in w.items() if name != "W_s"}
forgotten = difference(backward(kept, no_way, d_out), {"a": in_torch(a, w, d_out)["a"]})
nudged = w | {"W_s": w["W_s"] + 0.001}
kept_nudged = forward(a, nudged)
changed = difference({"out": kept_nudged["out"]} | backward(kept_nudged, nudged, d_out), in_torch(a, w, d_out))
print(f"\nThe shortcut's term left out of the gradient: {forgotten:.0e}; 0.001 added to W_s: {changed:.0e}")

# %% [markdown]
# ## Zero weights
#
# With W2 = 0 and b2 = 0 a residual block whose shortcut is the identity gives a[l+2] = g(0 + a[l]) = a[l], since a[l]
# came out of a ReLU, so that it is not negative, and g(g(z)) = g(z). To be the identity, a block has to bring F to
# zero and no more. A plain block with these weights gives g(0) = 0: all that came in is lost, and no gradient returns.

# %%
zero = {name: 0 * value for name, value in weights(6, 6).items()}
a, ones = relu(rng.normal(size=(IMAGES, 6))), np.ones((IMAGES, 6))
residual, plain = forward(a, zero | {"W_s": np.eye(6)}), forward(a, zero)
identity, positive = bool((residual["out"] == a).all()), int((a > 0).sum())
residual_back = backward(residual, zero | {"W_s": np.eye(6)}, ones)["a"]
plain_back = backward(plain, zero, ones)["a"]
print("\nWith all weights and biases zero:")
print(f"- the residual block returns its input to the bit: {identity}")
print(f"- the largest output of the plain block: {plain['out'].max():g}")
print(f"- of {a.size} inputs, {positive} are positive; a gradient of 1 at every output")
print(f"  reaches {int(residual_back.sum())} inputs of the residual block and {int(plain_back.sum())} of the plain one")

# %% [markdown]
# ## Is the gradient safe, then?
#
# From H(x) = F(x) + x follows ∂H/∂x = ∂F/∂x + 1, for vectors ∂F/∂x + I with the identity matrix I. One reads that this
# cannot become zero, so that gradients neither vanish nor explode. Neither follows. Where ∂F/∂x = -I, the sum is zero:
# W1 = I, W2 = -I and b = 0 give F(x) = -x for x ≥ 0. And through L blocks a gradient is multiplied by L such sums. In
# the table, blocks of n = 32 units follow each other, with weights drawn at random, of standard deviation s/√n, and
# b = 0. s = √2 is the usual start for ReLU: on average it keeps sizes in a plain stack (He et al. 2015,
# arXiv:1502.01852).

# %%
opposite = {"W1": np.eye(6), "b1": np.zeros(6), "W2": -np.eye(6), "b2": np.zeros(6), "W_s": np.eye(6)}
x = np.full((1, 6), 0.5)
slope = opposite["W2"] @ np.diag(forward(x, opposite)["z1"][0] > 0) @ opposite["W1"] + np.eye(6)
print(f"\nF(x) = -x: the largest number in ∂F/∂x + I is {np.abs(slope).max():g}")


def through(blocks, s, residual, n=32):
    """Size of the gradient at the input of so many blocks, over its size at their output."""
    stack = []
    for _ in range(blocks):
        w = {name: s / n**0.5 * value * (value.ndim == 2) for name, value in weights(n, n).items()}
        stack.append(w | {"W_s": np.eye(n)} if residual else w)
    a, kept = relu(rng.normal(size=(IMAGES, n))), []
    for w in stack:
        kept.append(forward(a, w))
        a = kept[-1]["out"]
    d = sent = rng.normal(size=a.shape)
    for one, w in zip(reversed(kept), reversed(stack), strict=True):
        d = backward(one, w, d)["a"]
    return float(np.linalg.norm(d) / np.linalg.norm(sent))


BLOCKS = 20
SIZES = {"0.5": 0.5, "1": 1.0, "√2 (He)": 2**0.5, "2": 2.0}
reached = {s: (through(BLOCKS, s, residual=False), through(BLOCKS, s, residual=True)) for s in SIZES.values()}
print(f"\nSize of the gradient that comes through {BLOCKS} blocks, from 1:\n")
print(f"{'s':10}{'plain':>10}{'residual':>12}")
for name, s in SIZES.items():
    print("{:10}{:10.0e}{:12.0e}".format(name, *reached[s]))
print(
    "\nWhere weights are small, a plain stack loses the gradient and the shortcuts hold it up. Where they are large,\n"
    "both explode: against that a shortcut is no remedy. Hence norms, and branches that start small."
)
print("\nA question to try: replace relu by np.tanh, its slope by 1 - tanh². Is the zero block still the identity?")
