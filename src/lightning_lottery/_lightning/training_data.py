"""Looks at the training data and the loss without leaving a trace."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader

from lightning_lottery._lightning.data import DataOrder
from lightning_lottery.attributes import replace_attribute
from lightning_lottery.errors import ConfigurationError, TrainingError
from lightning_lottery.tickets import ModuleState


class TrainingData:
    """The data and the loss of a fit, as criteria see them.

    Args:
        trainer: The Trainer, which has loaded its data.
        prunable: The parameters to take gradients of.
        stack: Undoes, when it is closed, what looking has changed.
    """

    def __init__(self, trainer: Trainer, prunable: Sequence[nn.Parameter], stack: ExitStack) -> None:
        self._trainer, self._module, self._stack = trainer, trainer.lightning_module, stack
        self._prunable = prunable
        self._batches: list[Any] = []
        self._is_untouched = False

    def _touch(self) -> None:
        if not self._is_untouched:
            self._stack.enter_context(_untouched(self._trainer, self._prunable))
            self._is_untouched = True

    def batches(self, number: int) -> list[Any]:
        """The first batches of the fit's own training loader, on the module's device; fewer if it has fewer.

        Raises:
            TrainingError: It has none.
        """
        self._touch()
        if len(self._batches) < number:
            limit = min(number, self._trainer.num_training_batches)
            loader = CombinedLoader(tree_map(_apart, self._trainer.train_dataloader), self._mode())
            self._batches = []
            for batch, _, _ in loader:
                self._batches.append(self._move(batch))
                if len(self._batches) >= limit:
                    break
        if not self._batches:
            raise TrainingError("The training loader gives no batch, and the criterion asks for one.")
        return self._batches[:number]

    def _mode(self) -> Any:
        # How a LightningModule's several loaders are put together; nothing public tells.
        combined = self._trainer.fit_loop._combined_loader
        return "max_size_cycle" if combined is None else combined._mode

    def _move(self, batch: Any) -> Any:
        # What the training loop does with each batch, in its order.
        batch = self._trainer.precision_plugin.convert_input(batch)
        batch = self._module._on_before_batch_transfer(batch, dataloader_idx=0)
        return self._trainer.strategy.batch_to_device(batch, dataloader_idx=0)

    def loss(self, batch: Any) -> Tensor:
        """What ``training_step`` gives for a batch, in the precision of the Trainer; 0 if it skips the batch.

        Raises:
            ConfigurationError: The LightningModule optimizes by hand, so that nothing tells what its loss is, or
                takes its batches by itself.
            TrainingError: It gives something else than a loss.
        """
        step = self._module.training_step
        if is_param_in_hook_signature(step, "dataloader_iter", explicit=True):
            raise ConfigurationError(
                "The criterion asks for the loss of a batch, and this training_step takes an iterator of batches. "
                "Take a criterion that looks at weights alone, such as Magnitude()."
            )
        if not self._module.automatic_optimization:
            raise ConfigurationError(
                "The criterion asks for the loss that training_step returns, and with manual optimization there "
                "is none. Take a criterion that looks at weights alone, such as Magnitude()."
            )
        self._touch()
        arguments = {"batch_idx": 0} if is_param_in_hook_signature(step, "batch_idx", min_args=2) else {}
        with torch.enable_grad(), self._trainer.precision_plugin.forward_context():
            try:
                given = step(tree_map(_copied, batch), *arguments.values())  # which may change it in place
            except AttributeError as error:
                raise TrainingError(
                    "The criterion calls training_step by itself, without the hooks on_train_…, and that failed: "
                    f"{error}. Set in the constructor what training_step reads, or take a criterion that looks at "
                    "weights alone."
                ) from error
        if given is None:
            return torch.zeros((), device=self._module.device)
        loss = given.get("loss") if isinstance(given, Mapping) else given
        if not isinstance(loss, Tensor):
            raise TrainingError(f"training_step gave {loss!r} where the criterion asks for a loss.")
        return loss

    def average(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean over all processes."""
        return {name: self._trainer.strategy.reduce(tensor, reduce_op="mean") for name, tensor in tensors.items()}

    def ones(self) -> Tensor:
        """An input of ones, shape (1, …) like one sample of the data.

        Raises:
            TrainingError: The batches hold no numbers.
        """
        example = self._module.example_input_array
        leaves = tree_leaves(self.batches(1)[0] if example is None else example)
        found = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dim()]
        if not found:
            raise TrainingError(
                "The criterion asks for the shape of an input, and the batches hold no tensor of numbers. Set "
                "self.example_input_array in the LightningModule."
            )
        return torch.ones_like(found[0][:1], device=self._module.device)


def _apart(loader: Any) -> Any:
    """A loader whose iterator is not that of the training, also where workers live on from epoch to epoch."""
    if isinstance(loader, DataLoader):
        loader = copy.copy(loader)
        loader._iterator = None
    return loader


def _copied(part: Any) -> Any:
    return part.clone() if isinstance(part, Tensor) else copy.copy(part)


class _Notes:
    """What a LightningModule keeps in lists, dictionaries, sets and numbers of its own, as from batch to batch."""

    def __init__(self, module: nn.Module) -> None:
        own = {n: value for n, value in vars(module).items() if not n.startswith("_") and n != "training"}
        self._held = [(value, copy.copy(value)) for value in own.values() if type(value) in (list, dict, set)]
        self._numbers = {n: value for n, value in own.items() if isinstance(value, (int, float, str, type(None)))}
        self._module = module

    def restore(self) -> None:
        present = vars(self._module)  # what has become a layer or a buffer since is not there any more
        present.update({name: value for name, value in self._numbers.items() if name in present})
        for value, before in self._held:
            value.clear()
            value.extend(before) if isinstance(value, list) else value.update(before)


@contextmanager
def training_data(
    trainer: Trainer, data: DataOrder, prunable: Sequence[nn.Parameter], seed: int
) -> Iterator[TrainingData]:
    """Lets somebody look, with random numbers of their own; afterwards all is as it was.

    Args:
        trainer: The Trainer, which has loaded its data.
        data: Its data.
        prunable: The parameters to take gradients of.
        seed: Of all random numbers meanwhile.
    """
    with data.undisturbed(seed), ExitStack() as stack:
        yield TrainingData(trainer, prunable, stack)


@contextmanager
def _untouched(trainer: Trainer, prunable: Sequence[nn.Parameter]) -> Iterator[None]:
    """Undoes what a step of training does to a LightningModule besides its gradients."""
    module: Any = trainer.lightning_module
    state, loggers, notes = ModuleState.of(module), trainer.loggers, _Notes(module)
    weights = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    undo = [
        replace_attribute(module, name, lambda *_, **__: None) for name in ("log", "log_dict")
    ]  # no loop would take it
    trainer.loggers = [DummyLogger() for _ in loggers]
    for parameter in prunable:
        parameter.requires_grad_()  # frozen ones are pruned as well
    try:
        yield
    finally:
        for put_back in undo:
            put_back()
        trainer.loggers = loggers
        state.restore(module)
        notes.restore()
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if not torch.equal(parameter, weights[name]):  # as of a teacher that follows a student
                    parameter.copy_(weights[name])
