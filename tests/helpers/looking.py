"""Rounds of a model with everything that a criterion could disturb."""

import torch

from lightning_lottery import (
    LotteryTicketCallback,
)
from tests.helpers.fits import loaders
from tests.helpers.resuming import Dropout, Logging
from tests.helpers.rounds import Rounds


class Looking(Logging):
    """Logs, has a metric, a counting buffer and a forward for SynFlow."""

    def __init__(self, *args):
        super().__init__(*args)
        self.example_input_array = torch.zeros(3, 784)

    def forward(self, images):
        return self.network(images)


def rounds(digits, **options):
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False, **options)
    return Rounds(Looking(Dropout()), lambda: loaders(digits), lottery=lottery).fit()
