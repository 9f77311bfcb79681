"""Runs with controls."""

from lightning.pytorch import seed_everything

from lightning_lottery import LotteryTicketCallback
from tests.helpers.fits import Model, Net, copied, loaders, quiet_trainer


def fitted(digits, *controls, spy=None, network=None, max_epochs=1, **options):
    """A run with controls, and the initial values of its network."""
    seed_everything(4, verbose=False)
    model = Model(network or Net())
    initial = {name: tensor.numpy() for name, tensor in copied(model).items()}
    options = {"densities": [0.4, 0.1], **options}
    lottery = LotteryTicketCallback(controls=list(controls), verbose=False, **options)
    others = [] if spy is None else [spy]
    quiet_trainer(callbacks=[lottery, *others], max_epochs=max_epochs).fit(model, *loaders(digits))
    return lottery, initial
