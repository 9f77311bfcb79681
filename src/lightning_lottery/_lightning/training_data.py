"""Access to the training data and the loss without side effects on the training."""

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

from lightning_lottery._lightning.data_order import DataOrder
from lightning_lottery.attributes import replace_attribute
from lightning_lottery.errors import ConfigurationError, TrainingError
from lightning_lottery.tickets import ModuleState


class TrainingData:
    """The training data and the loss of a fit, for criteria.

    Args:
        trainer: The Trainer, with its data loaded.
        prunable: The parameters that need gradients.
        stack: Collects what is to be undone at the end.
    """

    def __init__(self, trainer: Trainer, prunable: Sequence[nn.Parameter], stack: ExitStack) -> None:
        self._trainer, self._module, self._stack = trainer, trainer.lightning_module, stack
        self._prunable = prunable
        self._batches: list[Any] = []
        self._is_protected = False

    def _protect(self) -> None:
        if not self._is_protected:
            self._stack.enter_context(_restored_afterwards(self._trainer, self._prunable))
            self._is_protected = True

    def batches(self, number: int) -> list[Any]:
        """The first batches of the training loader, on the module's device. There may be fewer than ``number``.

        Raises:
            TrainingError: There are no batches.
        """
        self._protect()
        if len(self._batches) < number:
            limit = min(number, self._trainer.num_training_batches)
            loader = CombinedLoader(tree_map(_apart, self._trainer.train_dataloader), self._mode())
            self._batches = []
            for batch, _, _ in loader:
                self._batches.append(self._move(batch))
                if len(self._batches) >= limit:
                    break
        if not self._batches:
            raise TrainingError("The criterion needs a batch, but the training loader returns none.")
        return self._batches[:number]

    def _mode(self) -> Any:
        # How several loaders of a LightningModule are combined. Lightning has no public attribute for it.
        combined = self._trainer.fit_loop._combined_loader
        return "max_size_cycle" if combined is None else combined._mode

    def _move(self, batch: Any) -> Any:
        # The same steps as in the training loop, in the same order.
        batch = self._trainer.precision_plugin.convert_input(batch)
        batch = self._module._on_before_batch_transfer(batch, dataloader_idx=0)
        return self._trainer.strategy.batch_to_device(batch, dataloader_idx=0)

    def loss(self, batch: Any) -> Tensor:
        """The loss that ``training_step`` returns for a batch, in the precision of the Trainer; 0 if it skips it.

        Raises:
            ConfigurationError: ``training_step`` returns no usable loss: the LightningModule uses manual
                optimization, or fetches its batches itself.
            TrainingError: ``training_step`` does not return a loss, or fails.
        """
        step = self._module.training_step
        if is_param_in_hook_signature(step, "dataloader_iter", explicit=True):
            raise ConfigurationError(
                "The criterion needs the loss of a batch, but this training_step takes an iterator of batches. "
                "Use a criterion that only needs weights, such as Magnitude()."
            )
        if not self._module.automatic_optimization:
            raise ConfigurationError(
                "The criterion needs the loss that training_step returns, but with manual optimization there is "
                "none. Use a criterion that only needs weights, such as Magnitude()."
            )
        self._protect()
        arguments = {"batch_idx": 0} if is_param_in_hook_signature(step, "batch_idx", min_args=2) else {}
        with torch.enable_grad(), self._trainer.precision_plugin.forward_context():
            try:
                # A copy, since training_step may change the batch in place.
                given = step(tree_map(_copied, batch), *arguments.values())
            except AttributeError as error:
                raise TrainingError(
                    "The criterion calls training_step without the hooks on_train_…, and that failed: "
                    f"{error}. Set the attributes that training_step reads in the constructor, or use a criterion "
                    "that only needs weights."
                ) from error
        if given is None:
            return torch.zeros((), device=self._module.device)
        loss = given.get("loss") if isinstance(given, Mapping) else given
        if not isinstance(loss, Tensor):
            raise TrainingError(f"The criterion needs a loss, but training_step returned {loss!r}.")
        return loss

    def average(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean over all processes."""
        return {name: self._trainer.strategy.reduce(tensor, reduce_op="mean") for name, tensor in tensors.items()}

    def ones(self) -> Tensor:
        """An input of ones with the shape of one sample, (1, …).

        Raises:
            TrainingError: The batches contain no floating-point tensor.
        """
        example = self._module.example_input_array
        leaves = tree_leaves(self.batches(1)[0] if example is None else example)
        found = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dim()]
        if not found:
            raise TrainingError(
                "The criterion needs the shape of an input, but the batches contain no floating-point tensor. Set "
                "self.example_input_array in the LightningModule."
            )
        return torch.ones_like(found[0][:1], device=self._module.device)


def _apart(loader: Any) -> Any:
    """A copy of a loader with its own iterator, even if the loader has persistent workers."""
    if isinstance(loader, DataLoader):
        loader = copy.copy(loader)
        loader._iterator = None
    return loader


def _copied(part: Any) -> Any:
    return part.clone() if isinstance(part, Tensor) else copy.copy(part)


class _PlainAttributes:
    """The lists, dictionaries, sets and numbers among the attributes of a LightningModule."""

    def __init__(self, module: nn.Module) -> None:
        own = {n: value for n, value in vars(module).items() if not n.startswith("_") and n != "training"}
        self._held = [(value, copy.copy(value)) for value in own.values() if type(value) in (list, dict, set)]
        self._numbers = {n: value for n, value in own.items() if isinstance(value, (int, float, str, type(None)))}
        self._module = module

    def restore(self) -> None:
        present = vars(self._module)  # without attributes that have become layers or buffers
        present.update({name: value for name, value in self._numbers.items() if name in present})
        for value, before in self._held:
            value.clear()
            value.extend(before) if isinstance(value, list) else value.update(before)


@contextmanager
def training_data(
    trainer: Trainer, data: DataOrder, prunable: Sequence[nn.Parameter], seed: int
) -> Iterator[TrainingData]:
    """Gives access to data and loss, with separate random numbers, and restores everything on exit.

    Args:
        trainer: The Trainer, with its data loaded.
        data: The state of its data.
        prunable: The parameters that need gradients.
        seed: The seed of the random numbers inside.
    """
    with data.isolated(seed), ExitStack() as stack:
        yield TrainingData(trainer, prunable, stack)


@contextmanager
def _restored_afterwards(trainer: Trainer, prunable: Sequence[nn.Parameter]) -> Iterator[None]:
    """Restores on exit everything that a training step may change in a LightningModule."""
    module: Any = trainer.lightning_module
    state, loggers, notes = ModuleState.of(module), trainer.loggers, _PlainAttributes(module)
    weights = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    # Outside the loop, Lightning's log and log_dict raise an error.
    undo = [replace_attribute(module, name, lambda *_, **__: None) for name in ("log", "log_dict")]
    trainer.loggers = [DummyLogger() for _ in loggers]
    for parameter in prunable:
        parameter.requires_grad_()  # frozen parameters are pruned too
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
                if not torch.equal(parameter, weights[name]):  # for example of a teacher network
                    parameter.copy_(weights[name])
