"""What does a trained net lose with one of its blocks?

python examples/4_lesion.py [FOLDER FOR FIGURES]
"""

# %% [markdown]
# # 4. Lesions
#
# Write a residual net of three blocks out: y = x + F1(x) + F2(x + F1(x)) + … It is a sum over paths, and taking out one
# block leaves half of the paths whole. A plain net is one path: F3(F2(F1(x))). Take out a block, and what the next one
# reads is nothing that it was trained on (Veit et al. 2016, arXiv:1605.06431).
#
# We train both nets, then take out each block that keeps the shape of its input, one at a time, and train nothing anew.

# %%
import sys
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure

from resnetlab import TrainConfig, create_model, evaluate, fit, load_data
from resnetlab.models.surgery import drop_blocks, droppable_blocks

OUT = Path("runs/course" if "ipykernel" in sys.modules or len(sys.argv) < 2 else sys.argv[1])
NARROW = {"widths": (8, 16, 32), "stem_width": 8}
TRAINING = TrainConfig(epochs=8, evaluate_train="end", device="cpu")

data = load_data("digits")
whole, without = {}, {}
for kind, shortcut in (("plain", None), ("residual", "A")):
    net = create_model("cifar_resnet20", shortcut=shortcut, in_chans=1, image_size=8, seed=0, **NARROW)
    fit(net, data, TRAINING, seed=0)
    whole[kind] = evaluate(net, data).error
    without[kind] = {name: evaluate(drop_blocks(net, [name]), data).error for name in droppable_blocks(net)}
costs = {kind: {name: error - whole[kind] for name, error in found.items()} for kind, found in without.items()}

# %%
for kind, found in costs.items():
    print(f"{kind} net, 20 layers: {whole[kind]:.1%} of the test images wrong")
    for name, cost in found.items():
        print(f"    without {name}: {100 * cost:+6.1f} points")
typical = {kind: median(found.values()) for kind, found in costs.items()}
print(
    f"\nIn the median a block costs {100 * typical['plain']:.1f} points in the plain net and "
    f"{100 * typical['residual']:.1f} in the residual one: there the other paths carry on."
)

# %%
figure = Figure(figsize=(6, 3.6), layout="constrained")
axes = figure.subplots()
names = list(costs["plain"])
for offset, kind, colour in ((-0.2, "plain", "#c4452e"), (0.2, "residual", "#2457a6")):
    places = [place + offset for place in range(len(names))]
    axes.bar(places, [100 * costs[kind][name] for name in names], width=0.4, color=colour, label=kind)
axes.axhline(0, color="#606060", linewidth=0.8)
axes.set(xlabel="block taken out", ylabel="rise in test error (points)")
axes.set_xticks(range(len(names)), [name.removeprefix("stages.") for name in names])
axes.legend(frameon=False)
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "4_lesion.png", dpi=150)
print(f"\nFigure: {OUT / '4_lesion.png'}")
print("A question to try: take out two blocks at once. Is the cost the sum of both, or more?")
figure
