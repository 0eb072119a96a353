"""What does a trained net lose with one of its blocks?

python examples/4_lesion.py [FOLDER FOR FIGURES]
"""

# %% [markdown]
# # 4. Lesions
#
# Let x go in, and let F1 and F2 be the branches of two blocks (without the ReLU behind each sum). A residual net gives
#
#     y = x + F1(x) + F2(x + F1(x))
#
# The signal passes each block through its branch or past it: n blocks make 2ⁿ paths, and taking out one block leaves
# the half of them that goes past it. A plain net is one path, F2(F1(x)). Take out a block, and what the next one reads
# is nothing that it was trained on (Veit et al. 2016, arXiv:1605.06431).
#
# We train both nets, take out each block that keeps the shape of its input, one at a time, and train nothing anew. The
# cost of a block is the rise of the test error, in points: from 2 % to 7 % are 5 points. "stages.1.2" is block 2 of
# stage 1, counted from 0; within a stage all maps have one size.

# %%
import sys
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure

from resnetlab import TrainConfig, create_model, evaluate, fit, load_data
from resnetlab.models.surgery import drop_blocks, droppable_blocks

OUT = Path("runs/course" if "ipykernel" in sys.modules or len(sys.argv) < 2 else sys.argv[1])
NARROW = {"widths": (8, 16, 32), "stem_width": 8}
TRAINING = TrainConfig(epochs=10, evaluate_train="end", device="cpu")

data = load_data("digits")
whole, without = {}, {}
for kind, shortcut in (("plain", None), ("residual", "A")):
    net = create_model("cifar_resnet20", shortcut=shortcut, in_chans=1, image_size=8, seed=0, **NARROW)
    fit(net, data, TRAINING, seed=0)
    whole[kind] = evaluate(net, data).error
    without[kind] = {name: evaluate(drop_blocks(net, [name]), data).error for name in droppable_blocks(net)}
blocks = sum(len(stage) for stage in net.stages)
costs = {kind: {name: error - whole[kind] for name, error in found.items()} for kind, found in without.items()}

# %%
names = list(costs["plain"])
print("Test images wrong, 20 layers; then what it costs to take out one block:\n")
print(f"{'':20}{'plain':>8}{'residual':>10}\n{'the whole net':20}{whole['plain']:8.1%}{whole['residual']:10.1%}")
for name in names:
    print(f"without {name:12}{100 * costs['plain'][name]:+8.1f}{100 * costs['residual'][name]:+10.1f}  points")
typical = {kind: median(found.values()) for kind, found in costs.items()}
print(
    f"\nIn the median a block costs {100 * typical['plain']:.1f} points in the plain net, which leaves it about where "
    f"guessing is (90 % wrong), and\n{100 * typical['residual']:.1f} in the residual one: of the {2**blocks} paths "
    f"through its {blocks} blocks, {2 ** (blocks - 1)} are still there. Not every block is cheap:\n"
    f"the dearest costs it {100 * max(costs['residual'].values()):.1f} points. The plain net was the worse one before "
    "the lesion too, but by less."
)

# %%
figure = Figure(figsize=(6, 3.6), layout="constrained")
axes = figure.subplots()
for offset, kind, colour in ((-0.2, "plain", "#c4452e"), (0.2, "residual", "#2457a6")):
    places = [place + offset for place in range(len(names))]
    axes.bar(places, [100 * costs[kind][name] for name in names], width=0.4, color=colour, label=kind)
axes.axhline(0, color="#606060", linewidth=0.8)
axes.set(xlabel="block taken out (stage.block)", ylabel="rise in test error (points)")
axes.set_xticks(range(len(names)), [name.removeprefix("stages.") for name in names])
figure.legend(loc="outside upper center", ncols=2, frameon=False)
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "4_lesion.png", dpi=150)
print(f"\nFigure: {OUT / '4_lesion.png'}")
print("A question to try: take out two blocks of the residual net at once. Is the cost the sum of both, or more?")
figure
