"""How large are the gradients of the first and the last blocks, in plain and in residual nets?

python examples/3_gradients.py [FOLDER FOR FIGURES]
"""

# %% [markdown]
# # 3. Gradients by depth
#
# A gradient comes to the first block through all those behind it. In a plain net each multiplies it by ∂F/∂x, the
# derivatives of what the block gives by what it gets. If each makes it 1.4 times as large, 26 blocks make it 1.4²⁶ =
# 6,300 times as large; if each makes it smaller, it vanishes as fast. In a residual net the factor is I + ∂F/∂x, and
# the identity I carries the gradient past the block unchanged.
#
# W is all weights of a block's convolutions, ∇W the gradient of the loss with respect to them, ‖·‖ the root of the sum
# of squares. We measure ‖∇W‖ / ‖W‖ of every block, before any training, for one batch of 64 digits. A line is fitted
# to the logarithm of this ratio over the blocks. Its slope says by which factor the gradient grows from a block to the
# one before it. `growth` is the whole way along the line, from the last block to the first, in powers of ten: 0 is
# even, +3 means that the first blocks have 1,000 times the gradients of the last.

# %%
import sys
from pathlib import Path

from matplotlib.figure import Figure

from resnetlab import create_model, load_data
from resnetlab.data.loader import Loader
from resnetlab.records.gradients import judge
from resnetlab.train.gradients import block_gradients

OUT = Path("runs/course" if "ipykernel" in sys.modules or len(sys.argv) < 2 else sys.argv[1])
DEPTHS = (8, 20, 56)

data = load_data("digits")
images, labels = next(Loader(data.train, data.normalisation, 64).in_order())
measured = {}
for depth in DEPTHS:
    for kind, shortcut in (("plain", None), ("residual", "A")):
        net = create_model(f"cifar_resnet{depth}", shortcut=shortcut, in_chans=1, image_size=8, seed=0)
        measured[kind, depth] = block_gradients(net, images, labels)
growth = {key: judge(blocks).growth for key, blocks in measured.items()}
# The stem and the head are no blocks.
relative = {key: [b.relative for b in found if b.block.startswith("stages")] for key, found in measured.items()}
factor = {key: 10 ** (growth[key] / (len(blocks) - 1)) for key, blocks in relative.items()}

# %%
print(f"{'':11}{'blocks':>8}{'growth':>10}{'':>10}{'factor a block':>18}\n{'':19}{'plain':>10}{'residual':>10}", end="")
print(f"{'plain':>10}{'residual':>10}")
for depth in DEPTHS:
    plain, residual = ("plain", depth), ("residual", depth)
    print(f"{depth:4} layers{len(relative[plain]):8}{growth[plain]:+10.2f}{growth[residual]:+10.2f}", end="")
    print(f"{factor[plain]:10.2f}{factor[residual]:10.2f}")
deepest = DEPTHS[-1]
apart = {kind: relative[kind, deepest][0] / relative[kind, deepest][-1] for kind in ("plain", "residual")}
print(
    f"\nWith {deepest} layers the gradient of the first block is {apart['plain']:,.0f} times that of the last in the "
    f"plain net\nand {apart['residual']:.1f} times in the residual one. The factor of a plain block hardly depends on "
    "depth, so the\ngradient grows exponentially with it. That of a residual block comes closer to 1 the deeper the "
    "net.\n\nWith batch norm the gradients of a plain net do not vanish towards the input, they explode. That such nets"
    "\ntrain badly (script 2) and that their gradients are uneven are two findings: that one causes the other is not"
    "\nshown here."
)

# %%
figure = Figure(figsize=(6, 3.6), layout="constrained")
axes = figure.subplots()
for kind, colour in (("plain", "#c4452e"), ("residual", "#2457a6")):
    ratios = relative[kind, deepest]
    axes.semilogy(range(1, len(ratios) + 1), ratios, color=colour, marker=".", label=f"{kind}, {deepest} layers")
axes.set(xlabel="block, from the input on", ylabel="‖∇W‖ / ‖W‖")
axes.legend(frameon=False)
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "3_gradients.png", dpi=150)
print(f"\nFigure: {OUT / '3_gradients.png'}")
print('A question to try: build all nets with norm="none". The growth is now near 0: is all well? Print `relative`.')
figure
