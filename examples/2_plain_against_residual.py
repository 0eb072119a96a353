"""Plain against residual nets at two depths, on the handwritten digits.

python examples/2_plain_against_residual.py [FOLDER FOR FIGURES]
"""

# %% [markdown]
# # 2. Does a deeper net do better?
#
# It should: the added layers could be the identity, which gives back what it gets (script 5 builds that net). We train
# four nets, plain and residual, of 8 and of 32 layers: a first convolution (the stem), blocks of two convolutions each,
# and a matrix at the end (the head). Within a depth, both start from the same weights and see the same batches. All
# that differs is the shortcut (option A: the identity, padded with zeros where a block makes more channels).
#
# Look at the *training* error, the share of training images that the net gets wrong. A net that only learns its images
# by heart has a low one, and a high error on test images. A deep net with a high training error is something else:
# that is degradation (He et al. 2015, arXiv:1512.03385, Figure 1).

# %%
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure

from resnetlab import TrainConfig, create_model, evaluate, fit, load_data

OUT = Path("runs/course" if "ipykernel" in sys.modules or len(sys.argv) < 2 else sys.argv[1])
DEPTHS, NARROW = (8, 32), {"widths": (8, 16, 32), "stem_width": 8}
TRAINING = TrainConfig(epochs=6, device="cpu")

data = load_data("digits")
nets = {
    (kind, depth): create_model(f"cifar_resnet{depth}", shortcut=shortcut, in_chans=1, image_size=8, seed=0, **NARROW)
    for depth in DEPTHS
    for kind, shortcut in (("plain", None), ("residual", "A"))
}
paired = {}
for depth in DEPTHS:
    plain, residual = (dict(nets[kind, depth].named_parameters()) for kind in ("plain", "residual"))
    paired[depth] = plain.keys() == residual.keys() and all(torch.equal(plain[name], residual[name]) for name in plain)
    weights = sum(parameter.numel() for parameter in plain.values())
    print(f"{depth:2} layers, {weights:6,} weights: plain and residual start from the same ones: {paired[depth]}")
histories = {key: fit(net, data, TRAINING, seed=0) for key, net in nets.items()}
errors = {key: history[-1].trained.error for key, history in histories.items()}

# %%
print(f"\nImages wrong after {TRAINING.epochs} epochs (always saying the same digit: about 90 %):\n")
print(f"{'':20}{'training':>10}{'test':>10}")
for (kind, depth), error in errors.items():
    print(f"{kind:9} {depth:2} layers {error:10.1%}{evaluate(nets[kind, depth], data).error:10.1%}")
shallow, deep = DEPTHS
rise = {kind: errors[kind, deep] - errors[kind, shallow] for kind in ("plain", "residual")}
print(
    f"\nFrom {shallow} to {deep} layers the training error changes by {100 * rise['plain']:+.1f} points in the plain "
    f"net\nand by {100 * rise['residual']:+.1f} in the residual one. The deep plain net does not overfit: it does not "
    "fit.\nOne run each is a sign and no proof: `resnetlab study` repeats it over seeds, with intervals."
)

# %%
figure = Figure(figsize=(6, 3.6), layout="constrained")
axes = figure.subplots()
for (kind, depth), history in histories.items():
    colour, style = {"plain": "#c4452e", "residual": "#2457a6"}[kind], {shallow: "--", deep: "-"}[depth]
    curve = [100 * epoch.trained.error for epoch in history]
    axes.plot(range(1, len(curve) + 1), curve, color=colour, linestyle=style, label=f"{kind}, {depth} layers")
axes.set(xlabel="epoch", ylabel="training error (%)", ylim=(0, 100))
axes.legend(frameon=False)
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "2_plain_against_residual.png", dpi=150)
print(f"\nFigure: {OUT / '2_plain_against_residual.png'}")
print("A question to try: give all four nets a fifth of the rate, TrainConfig(lr=0.01). Does the plain one catch up?")
figure
