"""The callback: a thin shell that hands the moments of a fit to the run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from lightning_lottery import report
from lightning_lottery._lightning import RoundsFit
from lightning_lottery.controls import Control
from lightning_lottery.preflight import check_module, check_start, check_trainer, choose_folder
from lightning_lottery.prunable import refuse_lazy
from lightning_lottery.records import Records, RunFolder, Tickets, smallest_matching
from lightning_lottery.run import Run
from lightning_lottery.settings import Settings
from lightning_lottery.sizes import Sizes
from lightning_lottery.ticket import Ticket


class LotteryTicketCallback(Callback):
    """Finds lottery tickets by iterative magnitude pruning, inside one ``trainer.fit``.

    Round 0 trains the whole network. Then, ``rounds`` times: the weights of smallest magnitude of the whole
    network are removed, the survivors and everything else (biases, buffers, optimizers, schedulers, loops,
    other callbacks, data order) return to where they started, and the fit begins again (Frankle & Carbin
    2018, arXiv:1803.03635). The Trainer's limits (``max_epochs``, ``max_steps``, early stopping) hold for each
    round; ``max_time`` is the budget of all rounds together.

    After the fit the module holds the last ticket, trained.

    Args:
        rounds: Number of prunings, at least 1. Optional with ``densities``.
        amount: Fraction of the surviving prunable weights that one pruning removes, in (0, 1). Exactly
            ``round(amount * survivors)`` go. Give one of ``amount``, ``target_density`` and ``densities``.
        target_density: Density of the last round, in (0, 1); the rounds between fall geometrically.
        densities: Density of rounds 1, 2, …, each in (0, 1), strictly falling.
        monitor: Name of a logged metric, to find each round's best value and the matching tickets.
        mode: ``"min"`` if small values of the metric are good, ``"max"`` if large ones are; goes with ``monitor``.
        include: Patterns of parameter names to prune besides the weights of linear, convolution, attention
            and recurrent layers.
        exclude: Patterns of parameter names never to prune.
        controls: Controls to train after the tickets, in the same fit.
        control_rounds: Numbers of the rounds whose tickets the controls take; all but 0 if left out.
        same_data_order: Whether every round sees the same random numbers, and so the same order of data.
            ``False`` goes on drawing.
        dirpath: The run folder; it must not hold another run. If left out, ``lottery`` in the logger's
            ``log_dir``, or in the Trainer's ``default_root_dir``, with a number if that is taken.
        overwrite: Whether a run in ``dirpath`` may be replaced.
        verbose: Whether to print a line a round and a table at the end.

    Attributes:
        records: One :class:`RoundRecord` a finished round, ``records[r]`` for round r.

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
        self.settings = Settings(
            sizes=Sizes(rounds, amount, target_density, densities),
            monitor=monitor,
            mode=mode,
            include=include,
            exclude=exclude,
            controls=controls,
            control_rounds=control_rounds,
            same_data_order=same_data_order,
            dirpath=None if dirpath is None else Path(dirpath).expanduser(),
            overwrite=overwrite,
            verbose=verbose,
        )
        self.records = Records()
        self._folder: RunFolder | None = None
        self._fit: RoundsFit | None = None
        self._run: Run | None = None

    @property
    def tickets(self) -> Tickets:
        """The tickets by round, read from the run folder; ``tickets["shuffle_mask"]`` are those of a control."""
        return Tickets(self._folder)

    @property
    def run_folder(self) -> Path | None:
        """The folder of the run; ``None`` before the first one."""
        return None if self._folder is None else self._folder.path

    def smallest_matching(self, tolerance: float = 0.0) -> Ticket:
        """The smallest ticket that trained to the dense network's accuracy.

        Args:
            tolerance: How much worse than dense still matches, in units of the monitored metric, at least 0.

        Returns:
            The ticket of the smallest density whose best value of the monitored metric is at most
            ``tolerance`` worse than that of round 0; the ticket of round 0 if there is no smaller one.

        Raises:
            ConfigurationError: Nothing was monitored, or no round has finished.
        """
        return self.tickets[smallest_matching(self.records, self.settings.mode or "min", tolerance).round]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks the Trainer and makes its fit loop train rounds."""
        if stage != "fit":
            return
        self._close("failed")  # of a fit that ended without a word
        check_trainer(trainer, self)
        refuse_lazy(pl_module)
        self._fit = RoundsFit(trainer, self)
        self._fit.install(self._begin, self._boundary, self._bar)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the model, which is complete by now, against the arguments."""
        check_start(trainer, self._rounds_fit.nothing_to_train())
        self._parameters = check_module(pl_module, self.settings)
        self._next_folder = choose_folder(trainer, self.settings)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at metrics that were logged at the very end of the epoch before."""
        if self._run is not None:
            self._run.observe()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Masks the gradients before anything looks at their norm."""
        if self._run is not None:
            self._run.round.masking.mask_gradients()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Masks the gradients of a bare ``loss.backward()``, which calls no hook."""
        if self._run is not None and not pl_module.automatic_optimization:
            self._run.round.masking.mask_gradients()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the monitored metric."""
        if self._run is not None:  # the sanity check comes before the run
            self._run.observe()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes sure that every pruned weight is exactly zero."""
        if self._run is not None:
            self._run.round.masking.check()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the table of all rounds."""
        if self._run is not None and self.settings.verbose:
            print(f"\n{report.table(self.records, self.settings.monitor)}\n\nRun folder: {self.run_folder}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves the Trainer as Lightning made it; what is finished is on disk already."""
        if self._run is not None and self.settings.verbose:
            print(f"\nStopped; {len(self.records)} finished rounds are in the run folder: {self.run_folder}")
        self._close("failed")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leaves the Trainer as Lightning made it."""
        self._close("success")

    def _begin(self) -> bool:
        """Begins the run when training begins, unless there is nothing to train."""
        fit = self._rounds_fit
        if fit.nothing_to_train():
            print("Nothing was trained: the Trainer is at its limits already. Make a new one for a new run.")
            return False
        self.records, self._folder = Records(), self._next_folder
        module = fit.trainer.lightning_module
        self._run = Run(self.settings, fit, module, self._parameters, self._folder, self.records)
        return True

    def _boundary(self) -> bool:
        return self._run is not None and self._run.advance()

    def _bar(self) -> dict[str, str]:
        return {} if self._run is None else {"round": self._run.round.progress}

    @property
    def _rounds_fit(self) -> RoundsFit:
        assert self._fit is not None, "only between setup and teardown of a fit"
        return self._fit

    def _close(self, status: str) -> None:
        if self._run is not None:
            self._run.close(status)
        if self._fit is not None:
            self._fit.undo()
        self._run = self._fit = None
