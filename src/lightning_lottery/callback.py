"""The callback: a thin shell that hands the moments of a fit to the run."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_lottery import preflight, report
from lightning_lottery._lightning import Hooks, RoundsFit
from lightning_lottery.files import local_path
from lightning_lottery.notices import say
from lightning_lottery.preflight import Preview, Settings
from lightning_lottery.pruning import (
    Criterion,
    Method,
    Pattern,
    Scope,
    Selection,
    Sizes,
    criterion_of,
    pattern_of,
    refuse_lazy,
    scope_of,
)
from lightning_lottery.rounds import Resumable, Run
from lightning_lottery.rules import Control, Rewind, Stop, rewind_of
from lightning_lottery.storage import Records, RunFolder
from lightning_lottery.tickets import dense_ticket


@dataclass(frozen=True)
class _Start:
    """What is known of a run when the fit starts, before it trains.

    Attributes:
        selection: What of the network is pruned.
        description: What makes it this run.
        folder: Its folder.
    """

    selection: Selection
    description: dict[str, Any]
    folder: RunFolder


class LotteryTicketCallback(Resumable):
    """Finds lottery tickets by iterative magnitude pruning, inside one ``trainer.fit``.

    Round 0 trains the whole network. Then, ``rounds`` times: the weights of smallest magnitude of the whole
    network are removed, the survivors and everything else (biases, buffers, optimizers, schedulers, loops,
    other callbacks, data order) return to where they started, and the fit begins again (Frankle & Carbin
    2018, arXiv:1803.03635). Other criteria, scopes, patterns and rewinding rules go as well.

    The Trainer's limits (``max_epochs``, ``max_steps``, early stopping) hold for each
    round; ``max_time`` is the budget of all rounds together.

    After the fit the module holds the last ticket, trained.

    Args:
        rounds: Number of prunings, at least 1. Optional with ``densities``.
        amount: Fraction of the surviving prunable weights that one pruning removes, in (0, 1). Exactly
            ``round(amount * survivors)`` go. Give one of ``amount``, ``target_density`` and ``densities``.
        target_density: Density of the last round, in (0, 1); the rounds between fall geometrically.
        densities: Density of rounds 1, 2, …, each in (0, 1), strictly falling.
        criterion: How a weight is scored, such as :class:`SNIP`, or a function ``f(weight) -> scores``; those of
            the smallest scores go. :class:`Magnitude` if left out.
        scope: Where scores compete, such as :class:`Layerwise` or :class:`ERK`; :class:`Global` if left out.
        pattern: What is removed at once, such as ``NofM(2, 4)`` or :class:`Channels`, whose channels the sizes
            then count; :class:`Unstructured`, single weights, if left out.
        stop: Rules that end rounds early, such as ``[Tolerance(drop=0.01)]`` and ``[EarlyBird()]``.
        prune_at_init: Whether the first pruning comes before any training, so that there is no round 0.
        rewind: What a round starts from: a rule such as :class:`ToInit`, :class:`ToStep`, :class:`ToEpoch`,
            :class:`LearningRate`, :class:`FineTune`, or a point such as ``"500 steps"``, ``"2 epochs"``, ``"1%"``.
        monitor: Name of a logged metric, to find each round's best value and the matching tickets.
        mode: ``"min"`` if small values of the metric are good, ``"max"`` if large ones are; goes with ``monitor``.
        include: Patterns of parameter names to prune besides the matrices and kernels that a forward pass
            multiplies by; :meth:`preview` lists them.
        exclude: Patterns of parameter names never to prune; ``"frozen"`` stands for all that is not trained.
        controls: Controls to train after the tickets, in the same fit.
        control_rounds: Numbers of the rounds whose tickets the controls take; all but 0 if left out.
        same_data_order: Whether every round sees the same random numbers, and so the same order of data.
            ``False`` goes on drawing.
        dirpath: The run folder; it must not hold another run. If left out, ``lottery`` in the logger's
            ``log_dir``, or in the Trainer's ``default_root_dir``, with a number if that is taken.
        overwrite: Whether a run in ``dirpath`` may be replaced.
        verbose: Whether to print a line a round and a table at the end.

    Raises:
        ConfigurationError: An argument is out of its range; when fit begins, the model or the Trainer does not
            go with the arguments.

    Example:
        >>> lottery = LotteryTicketCallback(rounds=10, amount=0.2, monitor="val_acc", mode="max")
        >>> lottery.records
        Records([])
    """

    def __init__(
        self,
        rounds: int | None = None,
        *,
        amount: float | None = None,
        target_density: float | None = None,
        densities: Sequence[float] | None = None,
        criterion: Criterion | Callable[[Tensor], Tensor] | None = None,
        scope: Scope | None = None,
        pattern: Pattern | None = None,
        stop: Sequence[Stop] = (),
        prune_at_init: bool = False,
        rewind: Rewind | str | int = "init",
        monitor: str | None = None,
        mode: Literal["min", "max"] | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        controls: Sequence[Control] = (),
        control_rounds: Sequence[int] | None = None,
        same_data_order: bool = True,
        dirpath: str | Path | None = None,
        overwrite: bool = False,
        verbose: bool = True,
    ) -> None:
        settings = Settings(
            sizes=Sizes(rounds, amount, target_density, densities),
            method=Method(criterion_of(criterion), scope_of(scope), pattern_of(pattern)),
            stop=stop,
            prune_at_init=prune_at_init,
            rewind=rewind_of(rewind),
            monitor=monitor,
            mode=mode,
            include=include,
            exclude=exclude,
            controls=controls,
            control_rounds=control_rounds,
            same_data_order=same_data_order,
            dirpath=None if dirpath is None else local_path(dirpath, "dirpath='runs/mine'"),
            overwrite=overwrite,
            verbose=verbose,
        )
        super().__init__(settings)

    def _forget(self) -> None:
        super()._forget()
        self._run: Run | None = None
        self._start: _Start | None = None
        self._limits: dict[str, Any] = {}
        self._state: dict[str, Any] = {}

    def preview(self, model: nn.Module) -> Preview:
        """Prints what these arguments would prune of a network, and returns it; nothing is trained or changed.

        Args:
            model: The LightningModule, or any network; layers that ``configure_model`` makes must be there.

        Returns:
            The layers with their shapes, what each round keeps of them, and what is left out with the reasons.

        Raises:
            ConfigurationError: The network does not go with the arguments.
        """
        say(str(preview := Preview.of(model, self.settings)))
        return preview

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint is to hold of the run: plain values and tensors, see :class:`RunState`."""
        return self._state if self._run is None else vars(self._run.state())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks the Trainer and makes its fit loop train rounds."""
        if stage != "fit":
            return
        self._close("failed")  # of a fit that ended without calling teardown
        self._loaded, self._to_resume, self._state, self._doubles = None, None, {}, {}
        preflight.check_trainer(trainer, self, self.settings)
        self._limits = preflight.describe_trainer(trainer)  # before other callbacks lengthen the fit
        refuse_lazy(pl_module)
        self._fit = RoundsFit(trainer, self)
        hooks = Hooks(
            begin=self._begin,
            boundary=self._boundary,
            batch=self._between_batches,
            epoch=self._between_epochs,
            loading=self._loading,
            saved=self._saved,
            bar=self._bar,
        )
        self._fit.install(hooks)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the model, which is complete by now, against the arguments."""
        is_resumed = self._loaded is not None or self._to_resume is not None
        preflight.check_resume(trainer, is_resumed)
        has_nothing_to_train = self._rounds_fit.progress.nothing_to_train()
        preflight.check_start(trainer, is_resumed, has_nothing_to_train)
        if has_nothing_to_train and not is_resumed:
            return  # which is said when training would begin
        folder = self._folder_to_resume(trainer) if is_resumed else None
        copies = None if folder is None else folder.description().get("copies", {})
        selection = preflight.check_module(pl_module, self.settings, copies)
        if self.settings.verbose:
            say(selection.line())
        dense = dense_ticket(pl_module, selection.parameters)
        description = preflight.describe(self._limits, self.settings, pl_module, dense, selection.copies)
        if folder is None:
            self._start = _Start(selection, description, preflight.choose_folder(trainer, self.settings))
            return
        if self._loaded is not None and self._loaded.round > 0 and self.settings.rewind.length is not None:
            self._rounds_fit.allow_epochs(self.settings.rewind.length[0])
        preflight.check_same(folder, description, self._ignore)
        self._start = _Start(selection, description, RunFolder(folder.path, is_writer=trainer.is_global_zero))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at metrics that were logged at the very end of the epoch before, and what trains in this one."""
        if self._run is not None:
            self._run.round.observe(self._rounds_fit, self.settings.monitor)
            self._run.round.requires_grad = {n: p.requires_grad for n, p in pl_module.named_parameters()}
            self._run.round.look_at_gradients()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Notes the point to rewind to when training comes to it."""
        if self._run is not None:
            self._run.look(between_epochs=False)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Masks the gradients before anything looks at their norm."""
        if self._run is not None:
            self._run.round.look_at_gradients()
            self._run.round.masking.mask_gradients()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Masks the gradients of a bare ``loss.backward()``, which calls no hook."""
        if self._run is not None and not pl_module.automatic_optimization:
            self._run.round.masking.mask_gradients()

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, *_: int) -> None:
        """Gets ready to notice weights that something swaps in for the validation."""
        if self._run is not None and batch_idx == 0:
            self._run.validation.before_batch()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: int
    ) -> None:
        """Notices weights that something has swapped in."""
        if self._run is not None and batch_idx == 0:
            self._run.validation.after_batch()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the monitored metric."""
        if self._run is not None:  # the sanity check comes before the run
            self._run.round.observe(self._rounds_fit, self.settings.monitor)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes sure that every pruned weight is exactly zero, and lets stop rules look."""
        if self._run is not None:
            self._run.end_epoch()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the table of all rounds."""
        if self._run is not None and self.settings.verbose:
            say(f"\n{report.table(self.records, self.settings.monitor)}\n\nRun folder: {self.run_folder}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves the Trainer as Lightning made it; what is finished is on disk already."""
        if self._run is not None:
            with suppress(Exception):  # it must not hide the one that is being handled
                self._state = vars(self._run.state())  # for checkpoints that other callbacks write now
            if self.settings.verbose:
                say(f"\nStopped; {len(self.records)} finished rounds are in the run folder: {self.run_folder}")
                say(f"To go on: {self.how_to_resume}.")
        self._close("failed", has_failed=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leaves the Trainer as Lightning made it."""
        self._close("success")

    def _begin(self) -> bool:
        """Begins the run, or goes on with one, when training begins, unless there is nothing to train."""
        fit, loaded = self._rounds_fit, self._loaded
        is_resumed = loaded is not None or self._to_resume is not None
        if not is_resumed and fit.progress.nothing_to_train():
            say("Nothing was trained: the Trainer is at its limits already. Make a new one for a new run.")
            return False
        start, self._start = self._start, None
        assert start is not None, "only after on_fit_start"
        self._folder = preflight.claim(fit.trainer, self.settings, start.folder, is_resumed)
        self._records = Records()
        if self._folder.is_writer:
            self._mailbox.send(self._folder.path)
        self._loaded = self._to_resume = None
        module = fit.trainer.lightning_module
        if self._doubles:
            module.load_state_dict(self._doubles)
            self._doubles = {}
        run = Run(self.settings, fit, module, start.selection, self._folder, self._records)
        if is_resumed:
            run.go_on(loaded)
        else:
            run.begin(start.description)
        self._run = None if run.is_over else run
        return not run.is_over

    def _boundary(self) -> bool:
        return self._run is not None and self._run.advance()

    def _between_batches(self) -> None:
        if self._run is not None:
            self._run.look_again()

    def _between_epochs(self) -> None:
        if self._run is not None:
            self._run.look(between_epochs=True)

    def _saved(self, path: str) -> None:
        if self._run is not None:
            self._run.saved(path)

    def _bar(self) -> dict[str, str]:
        return {} if self._run is None else {"round": self._run.round.progress}

    def _close(self, status: str, has_failed: bool = False) -> None:
        if self._run is not None:
            self._run.close(status)
        if self._fit is not None:
            self._fit.undo(has_failed)
        if self._folder is not None:
            self._folder.unlock()
        self._run = self._fit = None
