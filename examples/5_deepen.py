"""Make a trained net deeper without changing what it says, then train on.

python examples/5_deepen.py [FOLDER FOR FIGURES]
"""

# %% [markdown]
# # 5. The deeper net that is no worse
#
# The branch F of a block ends in a batch norm, which multiplies each channel by a learned scale γ. With γ = 0 it is
# F(x) = 0, and the block returns its input: g(0 + x) = x, since x came out of a ReLU g. Put such blocks into a trained
# net, and it gives the same answers to the last bit. A deeper net can therefore always be as good as the shallower one.
# A plain block with γ = 0 gives g(0) = 0, and no signal comes through.

# %%
import sys
from copy import deepcopy
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch.nn import functional as F

from resnetlab import TrainConfig, create_model, evaluate, fit, load_data
from resnetlab.data.loader import Loader
from resnetlab.models.surgery import deepen, to_plain

OUT = Path("runs/course" if "ipykernel" in sys.modules or len(sys.argv) < 2 else sys.argv[1])
NARROW = {"widths": (8, 16, 32), "stem_width": 8}
ADDED = 6

data = load_data("digits")
net = create_model("cifar_resnet8", in_chans=1, image_size=8, seed=0, **NARROW)
first = fit(net, data, TrainConfig(epochs=6, device="cpu"), seed=0)
deeper = deepen(net, stage=1, n=ADDED).eval()

# %%
images, _ = next(Loader(data.test, data.normalisation, len(data.test.labels)).in_order())
with torch.no_grad():
    equal = torch.equal(net.eval()(images), deeper(images))
    cut = to_plain(deeper)(images)
    blind = bool((cut == cut[0]).all())
before, after = evaluate(net, data).error, evaluate(deeper, data).error
print(f"Test images wrong: {before:.2%} with 8 layers; {after:.2%} with {ADDED} blocks more, 20 layers")
print(f"All logits (the {10 * len(images):,} numbers that the predictions are made from) equal to the bit: {equal}")
print(f"The same 20 layers without shortcuts give the same logits for every image, whatever it shows: {blind}")

# %% [markdown]
# ## Are the new blocks dead weight?
#
# No. At the first step the weights in front of a γ of zero have no gradient, as all that they do is multiplied by zero;
# γ itself has one. It moves, and from the second step on the others have a gradient too.

# %%
batch, labels = next(Loader(data.train, data.normalisation, 64).in_order())
trial = deepcopy(deeper).train()
F.cross_entropy(trial(batch), labels).backward()
new = [block.branch for block in trial.stages[1][-ADDED:]]
awake = [branch.norm2.weight.grad.norm().item() for branch in new]
asleep = max(branch.conv1.weight.grad.norm().item() for branch in new)
print(f"\nFirst step: gradients of γ from {min(awake):.4f} to {max(awake):.4f} in the new blocks; of conv1 {asleep:g}")

# %% [markdown]
# ## Training on
#
# At two fifths of the rate, since the net is near a good place. For comparison the net of 8 layers trains on as well:
# what it gains, the new blocks cannot claim. `moved` is the mean of |γ| over the channels of each new block.

# %%
MORE = TrainConfig(epochs=5, lr=0.02, schedule="cosine", device="cpu")
nets = {"8 layers": deepcopy(net), "20 layers": deeper}
further = {name: fit(one, data, MORE, seed=0) for name, one in nets.items()}
moved = [block.branch.norm2.weight.abs().mean().item() for block in deeper.stages[1][-ADDED:]]
print(f"\nBefore: training loss {first[-1].trained.loss:.4f}, {after:.2%} of the test images wrong")
print(f"After {MORE.epochs} more epochs:")
for name, history in further.items():
    wrong = evaluate(nets[name], data).error
    print(f"    {name:9}: training loss {history[-1].trained.loss:.4f}, {wrong:.2%} of the test images wrong")
print("Mean |γ| of the new blocks, from 0:", ", ".join(f"{value:.3f}" for value in moved))
print("The new blocks learn. Whether they help is another question, which one run does not answer.")

# %%
figure = Figure(figsize=(6, 3.6), layout="constrained")
axes = figure.subplots()
done = len(first)
losses = [epoch.trained.loss for epoch in first]
axes.semilogy(range(1, done + 1), losses, color="#202020", marker=".", label="8 layers")
axes.axvline(done, color="#a0a0a0", linestyle=":")
axes.text(done + 0.1, max(losses), f"{ADDED} blocks added", va="top", color="#606060")
for (name, history), colour, style in zip(further.items(), ("#606060", "#2457a6"), ("--", "-"), strict=True):
    losses = [epoch.trained.loss for epoch in (first[-1], *history)]
    axes.semilogy(
        range(done, done + len(losses)), losses, color=colour, linestyle=style, marker=".", label=f"{name}, trained on"
    )
axes.set(xlabel="epoch", ylabel="training loss")
axes.yaxis.set_major_formatter("{x:g}")
axes.yaxis.set_minor_formatter("")
axes.legend(frameon=False, loc="lower left")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "5_deepen.png", dpi=150)
print(f"\nFigure: {OUT / '5_deepen.png'}")
print('A question to try: deepen a net with activation="tanh". Why is it refused, and why not with order="pre"?')
figure
