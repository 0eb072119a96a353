"""Make a trained net deeper without changing what it says, then train on.

python examples/5_deepen.py [FOLDER FOR FIGURES]
"""

# %% [markdown]
# # 5. The deeper net that is no worse
#
# A block whose last scale is zero has F(x) = 0, so it returns x: g(0 + x) = x, since x came out of a ReLU. Put such
# blocks into a trained net, and it gives the same answers to the last bit. A deeper net can therefore always be as good
# as the shallower one. That plain nets do not get there is a matter of training, not of what they can express.
#
# The new blocks are no dead weight: the gradient of their last scale is not zero, so they learn from the first step.

# %%
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure

from resnetlab import TrainConfig, create_model, evaluate, fit, load_data
from resnetlab.data.loader import Loader
from resnetlab.models.surgery import deepen

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
before, after = evaluate(net, data).error, evaluate(deeper, data).error
print(f"8 layers: {before:.2%} of the test images wrong; with {ADDED} blocks more, 20 layers: {after:.2%}")
print(f"Every logit of all {len(images)} test images equal to the last bit: {equal}")

# %% [markdown]
# ## Training on
#
# At a tenth of the rate, since the net is near a good place. `moved` is how far the last scale of each new block has
# come from zero, as the mean of |γ|: the new blocks have begun to do something.

# %%
second = fit(deeper, data, TrainConfig(epochs=4, lr=0.005, schedule="cosine", device="cpu"), seed=0)
moved = [block.branch.norm2.weight.abs().mean().item() for block in deeper.stages[1][-ADDED:]]
ended = evaluate(deeper, data).error
print(
    f"\nTrained on for 4 epochs: training loss {first[-1].trained.loss:.4f} before, {second[-1].trained.loss:.4f} after"
)
print(f"Test error {after:.2%} before, {ended:.2%} after; one run, so the difference is only a hint")
print("Mean |γ| of the new blocks, from 0:", ", ".join(f"{value:.4f}" for value in moved))

# %%
figure = Figure(figsize=(6, 3.6), layout="constrained")
axes = figure.subplots()
losses = [epoch.trained.loss for epoch in (*first, *second)]
axes.semilogy(range(1, len(losses) + 1), losses, color="#2457a6", marker=".")
axes.axvline(len(first) + 0.5, color="#606060", linestyle=":")
axes.text(len(first) + 0.6, max(losses), f"{ADDED} blocks added", va="top", color="#606060")
axes.set(xlabel="epoch", ylabel="training loss")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "5_deepen.png", dpi=150)
print(f"\nFigure: {OUT / '5_deepen.png'}")
print('A question to try: deepen a net with activation="tanh". Why is it refused, and why not with order="pre"?')
figure
