# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What is the lottery ticket hypothesis, and if it holds true, how can it be useful in practice?
#
# > A randomly-initialized, dense neural network contains a subnetwork that is initialized such that—when trained
# > in isolation—it can match the test accuracy of the original network after training for at most the same number
# > of iterations. (Frankle & Carbin 2018, [arXiv:1803.03635](https://arxiv.org/abs/1803.03635))
#
# Such a subnetwork is a *winning ticket*: its weights won the lottery when the initial values were drawn. This
# notebook finds one step by step, and watches the same small weight matrix all the way. Then a callback does it
# inside one `trainer.fit`, controls show what the initial values are good for, and the ticket is exported. All of
# it takes less than three minutes on two CPU cores. In a clone, `pip install notebook -e ".[demo,structured]"`
# installs what it needs.

# %%
import logging
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", message="IProgress")  # a progress bar that is not used here

import matplotlib.pyplot as plt
import torch
from lightning.pytorch import Trainer, seed_everything
from matplotlib.colors import TwoSlopeNorm
from torch import nn

from lightning_lottery import (
    LotteryTicketCallback,
    Reinitialize,
    ShuffleMask,
    Study,
    Ticket,
    TicketCallback,
    export,
)
from lightning_lottery.masks import prune_smallest
from lightning_lottery.vision import MNIST5000, Classifier

torch.set_num_threads(1)  # such a small network is fastest on one core
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")

quiet = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
data = MNIST5000(batch_size=50)  # 4,000 images of handwritten digits to train, 1,000 to validate
data.setup("fit")


def new_network():
    first, second, third = nn.Linear(784, 100), nn.Linear(100, 50), nn.Linear(50, 10)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), third)


# %% [markdown]
# ## 1. A large network with its initial values
#
# **How large is it?** Three weight matrices with 83,900 weights, for digits of 28 x 28 pixels. We watch a corner
# of the second matrix: 20 of its 50 rows (neurons) and 40 of its 100 columns (inputs). Blue weights are negative,
# red ones positive. Before training they are just random numbers.

# %%
seed_everything(0, verbose=False)
network = new_network()
# A copy, for later.
initial = {name: weight.clone() for name, weight in network.state_dict().items()}
matrices = [name for name in initial if name.endswith("weight")]


def show(title, weights, masks=None, axes=None):
    """Draws the corner of the second matrix. Pruned weights are dark."""
    corner = weights["3.weight"][:20, :40].clone()
    if masks is not None:
        corner[~masks["3.weight"][:20, :40]] = torch.nan
    axes = axes or plt.subplots(figsize=(7, 3.6))[1]
    axes.set_facecolor("0.25")
    axes.imshow(corner, cmap="RdBu_r", norm=TwoSlopeNorm(0, -0.25, 0.25))
    axes.set(title=title, xticks=[], yticks=[])


show("1. Initial values", initial)
print(f"{sum(initial[name].numel() for name in matrices):,} weights")

# %% [markdown]
# ## 2. Train
#
# **What does training do to the weights?** It makes some of them large, in both directions, and hardly moves many
# others.


# %%
def train(network, masks=None):
    """Eight epochs of SGD. Pruned weights stay zero."""
    torch.manual_seed(1)  # the same order of images each time
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(8):
        for images, labels in data.train_dataloader():
            loss = nn.functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for name in masks or ():
                network.get_parameter(name).data *= masks[name]


def accuracy(network):
    """The share of the 1,000 held-out images that the network reads correctly."""
    with torch.no_grad():
        hits = [network(images).argmax(1) == labels for images, labels in data.val_dataloader()]
    return torch.cat(hits).float().mean().item()


train(network)
trained = {name: weight.clone() for name, weight in network.state_dict().items()}
show(f"2. Trained: accuracy {accuracy(network):.1%}", trained)
moved = (trained["3.weight"] - initial["3.weight"]).abs()
print(f"Half of the weights moved by less than {moved.median():.3f}, the others by up to {moved.max():.3f}.")

# %% [markdown]
# ## 3. Prune the smallest weights
#
# **Which weights can go?** Those that training left close to zero: the network hardly uses them. We compare all
# weights of all three matrices, and remove the 40 % with the smallest magnitude. They are dark. Our matrix loses
# less than 40 %, because most of the small weights are in the first one.

# %%
total = sum(trained[name].numel() for name in matrices)
weights = {name: trained[name] for name in matrices}
masks = prune_smallest(weights, None, k=round(0.4 * total), magnitude=True)


def apply(network, weights, masks):
    """Copies weights into a network. Pruned ones become zero."""
    masked = {name: weights[name] * mask for name, mask in masks.items()}
    network.load_state_dict({**weights, **masked})


for name in matrices:
    print(f"{name}: {masks[name].float().mean():.1%} of {masks[name].numel():,} weights left")
apply(network, trained, masks)
show(f"3. Pruned, not trained again: accuracy {accuracy(network):.1%}", trained, masks)

# %% [markdown]
# ## 4. Reset the survivors to the *same* initial values
#
# **What do the survivors start from?** From exactly what they were in the first picture, not from new random
# numbers. Compare the two: every coloured cell has its old colour. This mask with these initial values is a
# *ticket*.

# %%
apply(network, initial, masks)
show(f"4. Reset: accuracy {accuracy(network):.1%}", initial, masks)

# %% [markdown]
# ## 5. Repeat
#
# **How small can it become?** Train the ticket, prune 40 % of what is left, reset, and so on.

# %%
hand_masks = [masks]
figure, panels = plt.subplots(2, 3, figsize=(11, 4.4), layout="constrained")
for round_, axes in enumerate(panels.flat, 1):
    apply(network, initial, masks)
    train(network, masks)
    kept = sum(int(mask.sum()) for mask in masks.values())
    title = f"round {round_}: {kept / total:.1%} left, accuracy {accuracy(network):.1%}"
    show(title, network.state_dict(), masks, axes)
    if round_ < 6:
        weights = {name: network.get_parameter(name).detach() for name in matrices}
        masks = prune_smallest(weights, masks, k=round(0.4 * kept), magnitude=True)
        hand_masks.append(masks)
for name in matrices:
    print(f"{name}: {masks[name].float().mean():.1%} of {masks[name].numel():,} weights left")
pixels = torch.cat([images for images, _ in data.train_dataloader()]).flatten(1)
print(f"{(pixels == 0).all(0).float().mean():.0%} of the pixels are black in all images.")

# %% [markdown]
# The last ticket has 5 % of the weights. The first matrix has lost most. Some of its weights read pixels at the
# border that are black in all images, so that they learn nothing.
#
# ## 6. The callback does it in six lines
#
# **Is it the same?** `LotteryTicketCallback` goes through steps 2 to 5 inside one `trainer.fit`. Your
# LightningModule needs no changes, and also the optimizer, the schedule, other callbacks and the order of the data
# start over in each round.

# %%
seed_everything(0, verbose=False)
model = Classifier(new_network())  # SGD with learning rate 0.1, as above
torch.manual_seed(1)  # the same order of images as above
lottery = LotteryTicketCallback(rounds=6, amount=0.4, dirpath="lottery_tutorial/first", overwrite=True)
trainer = Trainer(max_epochs=8, callbacks=[lottery], accelerator="cpu", **quiet)
trainer.fit(model, datamodule=data)

# %%
for round_, by_hand in enumerate(hand_masks, 1):
    found = lottery.tickets[round_].masks
    same = all(torch.equal(found[f"network.{name}"], by_hand[name]) for name in matrices)
    density = lottery.tickets[round_].density
    print(f"round {round_}: {density:.1%} left, the same mask as by hand: {same}")

# %% [markdown]
# ## 7. Is it the mask, or the initial values?
#
# **What does the ticket owe to its initial values?** Two *controls* train as long, with as many weights, but each
# with one thing deliberately wrong: `Reinitialize` gives the same mask fresh random values; `ShuffleMask` moves
# the mask's ones to random positions of the same layer. One run may be luck, so here are three, with different
# seeds. They are one *study*, read from the run folders.

# %%
for seed in range(3):
    seed_everything(seed, verbose=False)
    lottery = LotteryTicketCallback(
        rounds=6,
        amount=0.4,
        monitor="val_acc",
        mode="max",
        controls=[Reinitialize(), ShuffleMask()],
        dirpath=f"lottery_tutorial/study/seed_{seed}",
        overwrite=True,
        verbose=False,
    )
    model = Classifier(new_network())
    trainer = Trainer(max_epochs=8, callbacks=[lottery], accelerator="cpu", **quiet)
    trainer.fit(model, datamodule=data)

verdict = Study.read("lottery_tutorial/study").verdict(at="end")

# %%
labels = {"ticket": "ticket", "reinitialize": "fresh values", "shuffle_mask": "shuffled mask"}
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for branch, label in labels.items():
    rows = verdict[branch].values()
    sizes = [100 * row.density for row in rows]
    means = [100 * row.metric.mean for row in rows]
    deviations = [100 * row.metric.deviation for row in rows]
    axes.errorbar(sizes, means, deviations, marker="o", capsize=3, label=label)
axes.axhline(100 * verdict[0].metric.mean, color="0.6", linestyle="--", label="dense network")
axes.set(xscale="log", xlabel="weights left in %", ylabel="accuracy in %, 3 seeds")
sizes = [100 * row.density for row in verdict["ticket"].values()]
axes.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
axes.minorticks_off()
axes.invert_xaxis()
axes.legend()

print("Compared with the dense network of the same seed, in points:")
for branch, label in labels.items():
    for number in range(1, 7):
        row = verdict[branch][number]
        mean, low, high = (100 * getattr(row.metric.to_dense, part) for part in ("mean", "low", "high"))
        print(f"{label}, {row.density:.1%}: {mean:+.1f} [{low:+.1f}, {high:+.1f}]")

# %% [markdown]
# The smaller the ticket, the more it needs its own values: fresh ones fall behind, and at small sizes a shuffled
# mask falls much further. Bars are standard deviations, and brackets 95 % intervals; three seeds give wide ones.
# `lightning-lottery demo` trains five.
#
# ## 8. What does one do with the result?
#
# **How can it be useful in practice?** First, the ticket is a small file. Everyone can train it again, from the
# same initial values, in any Trainer. Here is the last ticket of the third seed:

# %%
lottery.tickets[6].save("lottery_tutorial/ticket.safetensors")
ticket = Ticket.load("lottery_tutorial/ticket.safetensors")
lottery.tickets[0].save("lottery_tutorial/dense.safetensors")
print(f"{ticket.kept:,} of {ticket.prunable:,} weights")
for name in ("dense", "ticket"):
    print(f"{name}: {Path(f'lottery_tutorial/{name}.safetensors').stat().st_size:,} bytes")

again = Classifier(new_network())
callback = TicketCallback(ticket, verbose=False)
trainer = Trainer(max_epochs=8, callbacks=[callback], accelerator="cpu", **quiet)
trainer.fit(again, datamodule=data)
before = lottery.records[6].metrics["val_acc"]
print(f"trained again: accuracy {accuracy(again.network):.1%}, in the search {before:.1%}")

# %% [markdown]
# Second, the trained ticket is a smaller network, and with sparse layers also a faster one. `export.best` measures
# that on *this* machine, here for batches of 1,000 images, and says if nothing is gained:

# %%
images, _ = next(iter(data.val_dataloader()))
small, measured = export.best(again, ticket, images, batch_sizes=[1000])
print(measured)
torch.save(small, "lottery_tutorial/small.pt")
print(f"accuracy of the exported network: {accuracy(small):.1%}")

# %% [markdown]
# Third, there is the price:

# %%
trainings = lottery.records.cost().by_branch["ticket"].trainings
print(f"The search cost as much as {trainings:.0f} trainings of the dense network.")

# %% [markdown]
# ## So: what is it, and how is it useful?
#
# - **What it says.** A large network contains a small one that trains as well. What makes it special is the mask
#   *together* with its initial values.
# - **It holds here**, for a small network and simple images: down to 13 % of the weights, the ticket is on average
#   no worse than the dense network. In published experiments with ResNets, batch normalisation and large learning
#   rates it did not hold. There, the weights are better reset to those of an early step
#   ([arXiv:2003.02389](https://arxiv.org/abs/2003.02389)): `LotteryTicketCallback(..., rewind="6%")`.
# - **What it is good for.** Smaller files, faster networks where sparse layers pay off, a start for further
#   trainings (`TicketCallback`, `ticket.transfer`), and a question to ask of your own network: how many of its
#   weights does it need?
# - **What it costs.** The ticket is known only after the network has been trained several times. `search="20%"`
#   makes the rounds that look for it shorter.
