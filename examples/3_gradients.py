"""How large are the gradients of the first and the last blocks, in plain and in residual nets?

python examples/3_gradients.py [FOLDER FOR FIGURES]
"""

# %% [markdown]
# # 3. Gradients by depth
#
# A gradient comes to the first block through all those behind it. In a plain net it is multiplied by the Jacobian of
# each, so that it grows or shrinks like a power of the depth. In a residual net each factor is I + ∂F/∂x, and the
# identity carries a part of it unchanged.
#
# We measure ‖∇W‖ / ‖W‖ of every block, at initialisation, for one batch of digits. `growth` is how many powers of ten
# lie between the last block and the first: 0 is even, positive means that the first blocks have the larger gradients.

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

# %%
print("growth, in powers of ten from the last block to the first, before any training:\n")
for depth in DEPTHS:
    print(f"{depth:3} layers: plain {growth['plain', depth]:+.2f}, residual {growth['residual', depth]:+.2f}")
deepest = DEPTHS[-1]
print(
    f"\nIn the plain net of {deepest} layers the gradients of the first block are "
    f"{10 ** growth['plain', deepest]:,.0f} times those of the last,\nin the residual net "
    f"{10 ** growth['residual', deepest]:.1f} times.\n"
    "With batch norm they do not vanish in a plain net: they explode. That a plain net trains badly\nand that its "
    "gradients are uneven are two findings; this figure does not show that one causes the other."
)

# %%
figure = Figure(figsize=(6, 3.6), layout="constrained")
axes = figure.subplots()
for kind, colour in (("plain", "#c4452e"), ("residual", "#2457a6")):
    # The stem and the head are no blocks.
    relative = [block.relative for block in measured[kind, deepest] if block.block.startswith("stages")]
    axes.semilogy(range(1, len(relative) + 1), relative, color=colour, marker=".", label=f"{kind}, {deepest} layers")
axes.set(xlabel="block, from the input on", ylabel="‖∇W‖ / ‖W‖")
axes.legend(frameon=False)
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "3_gradients.png", dpi=150)
print(f"\nFigure: {OUT / '3_gradients.png'}")
print(
    'A question to try: build the plain nets with norm="none". Do the gradients still explode, or do they now vanish?'
)
figure
