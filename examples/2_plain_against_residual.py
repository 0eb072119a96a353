"""Plain against residual nets at two depths, on the handwritten digits.

python examples/2_plain_against_residual.py [FOLDER FOR FIGURES]
"""

# %% [markdown]
# # 2. Does a deeper net do better?
#
# It should: the added layers could be the identity. We train four nets, plain and residual, shallow and deep, from
# equal initial weights and on equal batches. All that differs within a pair is the shortcut.
#
# Look at the *training* error. A net that fits too much has a low one; degradation is a high one.

# %%
import sys
from pathlib import Path

from matplotlib.figure import Figure

from resnetlab import TrainConfig, create_model, fit, load_data

OUT = Path("runs/course" if "ipykernel" in sys.modules or len(sys.argv) < 2 else sys.argv[1])
DEPTHS, NARROW = (8, 44), {"widths": (8, 16, 32), "stem_width": 8}
TRAINING = TrainConfig(epochs=6, device="cpu")

data = load_data("digits")
histories = {}
for depth in DEPTHS:
    for kind, shortcut in (("plain", None), ("residual", "A")):
        net = create_model(f"cifar_resnet{depth}", shortcut=shortcut, in_chans=1, image_size=8, seed=0, **NARROW)
        histories[kind, depth] = fit(net, data, TRAINING, seed=0)
errors = {key: history[-1].trained.error for key, history in histories.items()}

# %%
for (kind, depth), error in errors.items():
    print(f"{kind:8} {depth:2} layers: {error:6.1%} of the training images wrong after {TRAINING.epochs} epochs")
shallow, deep = DEPTHS
rise = {kind: errors[kind, deep] - errors[kind, shallow] for kind in ("plain", "residual")}
print(
    f"\nFrom {shallow} to {deep} layers the training error changes by {100 * rise['plain']:+.1f} points in the plain "
    f"net and by {100 * rise['residual']:+.1f} in the residual one.\nOne run each is a sign and no proof: "
    "`resnetlab study` repeats it over seeds, with intervals."
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
print("A question to try: give the deep plain net a tenth of the rate, or three times the epochs. Does it catch up?")
figure
