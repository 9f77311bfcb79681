"""LotteryTicketCallback: passes the hooks of a fit on to the run."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from typing_extensions import override

from lightning_lottery import report
from lightning_lottery._lightning import Hooks, RoundsLoop
from lightning_lottery.callback.masking import MaskingCallback
from lightning_lottery.callback.resuming import Resumable
from lightning_lottery.files import local_path
from lightning_lottery.preflight import (
    FitRequest,
    Prepared,
    Preview,
    check_rounds,
    check_trainer,
    describe_trainer,
    prepare,
)
from lightning_lottery.pruning import (
    Criterion,
    Method,
    Pattern,
    Scope,
    Sizes,
    check_not_lazy,
    criterion_of,
    pattern_of,
    scope_of,
)
from lightning_lottery.rounds import Round, Run, begin_run, resume_run
from lightning_lottery.rules import Control, Rewind, Settings, Stop, length_of, rewind_of
from lightning_lottery.storage import GivenTicket, Records, to_plain
from lightning_lottery.tickets import TICKET_BRANCH, Ticket


class LotteryTicketCallback(Resumable):
    """Finds lottery tickets by iterative magnitude pruning, inside one ``trainer.fit``.

    Round 0 trains the whole network. Then the following is repeated ``rounds`` times: the weights of smallest
    magnitude in the whole network are removed; the survivors and everything else (biases, buffers, optimizers,
    schedulers, loops, other callbacks, data order) return to their initial state; and the network is trained again
    (Frankle & Carbin 2018, arXiv:1803.03635). Other criteria, scopes, patterns and rewinding rules are available.

    The Trainer's limits (``max_epochs``, ``max_steps``, early stopping) apply to each round, but ``max_time`` is
    the budget of all rounds together. After the fit, the module contains the trained weights of the last ticket.

    Args:
        rounds: Number of prunings, at least 1. Optional with ``densities``.
        amount: Fraction of the surviving prunable weights that each pruning removes, in (0, 1). Exactly
            ``round(amount * survivors)`` weights are removed. Pass one of ``amount``, ``target_density`` and
            ``densities``.
        target_density: Density of the last round, in (0, 1); the densities in between fall geometrically.
        densities: Densities of rounds 1, 2, …, falling or equal, each in (0, 1). A round with the density of the
            round before removes nothing: ``[0.1] * 5`` with ``rewind=LearningRate()`` is cyclic training.
        criterion: How a weight is scored, for example :class:`SNIP` or a function ``f(weight) -> scores``. The
            weights with the smallest scores are removed. Default: :class:`Magnitude`.
        scope: Where scores compete, for example :class:`Layerwise` or :class:`ERK`. Default: :class:`Global`.
        pattern: What is removed together, for example ``NofM(2, 4)``, or :class:`Channels` and
            :class:`CoupledChannels`, with sizes that then count channels. Default: :class:`Unstructured`, single
            weights.
        start: A :class:`Ticket`, or the path of its file, that is round 0 instead of the dense network, from the
            ticket's starting values and with the schedule at its start. ``amount`` then counts from its survivors,
            densities count from all prunable weights.
        stop: Rules that end the search or a round early, for example ``[Tolerance(drop=0.01)]``.
        prune_at_init: Whether to prune before any training. The first round is then round 1.
        rewind: What a round starts from: a rule (:class:`ToInit`, :class:`ToStep`, :class:`ToEpoch`,
            :class:`LearningRate`, :class:`FineTune`) or a point such as ``"500 steps"``, ``"2 epochs"``, ``"1%"``.
        monitor: Name of a logged metric, used to find the best value of each round and the matching tickets.
        mode: ``"min"`` if small values of the metric are good, ``"max"`` if large values are; needed by
            ``monitor``.
        include: Patterns of names of parameters to prune in addition to the matrices and kernels that a forward
            pass multiplies by, which :meth:`preview` lists.
        exclude: Patterns of names of parameters never to prune; ``"frozen"`` means all that are not trained.
        controls: Controls to train after the tickets, in the same fit.
        control_rounds: The rounds whose tickets the controls use; by default all that train fully, except 0.
        search: The length of rounds that only look for the next mask: ``"1000 steps"``, ``"2 epochs"``, or
            ``"20%"`` of the steps of a round. Round 0 trains fully; then come short rounds, recorded as branch
            ``"search"``; then the tickets of ``full_rounds`` train fully. In a short round, the length is the
            Trainer's limit while optimizers and schedulers are made, so schedules that follow
            ``estimated_stepping_batches``, ``max_steps`` or ``max_epochs`` are compressed, and others are cut.
            With a later rewind point, the length counts from there.
        full_rounds: With ``search``, the rounds whose tickets train fully: a list that contains the last round, or
            ``"all"``. Default: the last round.
        same_data_order: Whether every round uses the same random numbers, and so the same order of data.
            Otherwise the random generators continue.
        dirpath: The run folder; it must not contain another run. Default: ``lottery`` in the logger's ``log_dir``
            or in the Trainer's ``default_root_dir``, with a number if that is taken.
        overwrite: Whether a run in ``dirpath`` may be replaced.
        verbose: Whether to print what is pruned, hints, one line per round, and a table at the end.

    Raises:
        ConfigurationError: An argument is invalid; or, when fit begins, the model or the Trainer does not work
            with the arguments.
        TicketError: ``start`` is not a ticket; or, when fit begins, it does not fit the model.

    Examples:
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
        start: Ticket | str | Path | None = None,
        prune_at_init: bool = False,
        rewind: Rewind | str | int = "init",
        monitor: str | None = None,
        mode: Literal["min", "max"] | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        controls: Sequence[Control] = (),
        control_rounds: Sequence[int] | None = None,
        search: str | int | None = None,
        full_rounds: Sequence[int] | int | Literal["all"] | None = None,
        same_data_order: bool = True,
        dirpath: str | Path | None = None,
        overwrite: bool = False,
        verbose: bool = True,
    ) -> None:
        settings = Settings(
            sizes=Sizes(rounds, amount, target_density, densities),
            method=Method(criterion_of(criterion), scope_of(scope), pattern_of(pattern)),
            stop=stop,
            start=None if start is None else GivenTicket.of(start, "start").ticket,
            prune_at_init=prune_at_init,
            rewind=rewind_of(rewind),
            monitor=monitor,
            mode=mode,
            include=include,
            exclude=exclude,
            controls=controls,
            control_rounds=control_rounds,
            search=length_of(search),
            full_rounds=[full_rounds] if isinstance(full_rounds, int) else full_rounds,
            same_data_order=same_data_order,
            dirpath=None if dirpath is None else local_path(dirpath, "dirpath='runs/mine'"),
            overwrite=overwrite,
            verbose=verbose,
        )
        super().__init__(settings)

    def _reset(self) -> None:
        super()._reset()
        self._prepared: Prepared | None = None
        self._run: Run | None = None
        # For checkpoints that other callbacks write on an exception, after the run is closed.
        self._last_state: dict[str, Any] = {}

    def preview(self, model: nn.Module, example: Any = None) -> Preview:
        """Prints and returns what these arguments would prune, without training or changing the network.

        Args:
            model: The LightningModule, or any network. Layers made by ``configure_model`` must exist.
            example: For :class:`CoupledChannels`: what the network is called with, a tensor, a tuple of arguments,
                or a dictionary of keyword arguments. Default: ``model.example_input_array``.

        Returns:
            The prunable layers with their shapes, what each round keeps of them, and what is left out and why.

        Raises:
            ConfigurationError: The network does not work with the arguments.
        """
        preview = Preview.of(model, self.settings, example)
        rank_zero_only(print)(preview, flush=True)
        return preview

    def state_dict(self) -> dict[str, Any]:
        """The state of the run for a checkpoint: plain values and tensors (see :class:`RunState`)."""
        return self._last_state if self._run is None else to_plain(self._run.state())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks the Trainer, and makes its fit loop train rounds."""
        if stage != "fit":
            return
        self._close("failed")  # in case an earlier fit ended without teardown
        check_trainer(trainer, MaskingCallback)
        check_rounds(trainer, self.settings)
        # Now, before other callbacks change the limits.
        self._request = FitRequest(trainer=describe_trainer(trainer), ignore=self._ignore)
        self._last_state = {}
        check_not_lazy(pl_module)
        hooks = Hooks(
            before_training=self._before_training,
            after_round=self._after_round,
            after_batch=self._after_batch,
            before_epoch=self._before_epoch,
            before_loading=self._before_loading,
            after_saving=self._after_saving,
            progress_texts=self._progress_texts,
        )
        self._loop = RoundsLoop(trainer, self, hooks)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the model, which is complete now, against the arguments, and prepares the run."""
        assert self._loop is not None, "only after setup"
        self._prepared = prepare(self._loop, pl_module, self.settings, self._request)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Observes what was logged at the end of the last epoch, and notes what is trainable."""
        if self._run is not None:
            self._run.round.metric.observe(trainer)
            self._run.round.requires_grad = {n: p.requires_grad for n, p in pl_module.named_parameters()}
            self._run.round.track_gradients()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Counts values of the monitored metric that are logged from now on as new. Starts counting FLOPs."""
        if self._run is not None:
            self._run.round.metric.begin_batch(trainer)
            self._run.note_inputs(batch)
            self._run.start_counting()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Saves the rewind point when training reaches it."""
        if self._run is not None:
            self._run.stop_counting()
            self._run.save_rewind_point(between_epochs=False)

    @property
    @override
    def _training(self) -> Round | None:
        return None if self._run is None else self._run.round

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tracks gradients, and masks them before anything uses their norm."""
        if self._run is not None:
            self._run.round.track_gradients()
        super().on_after_backward(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Observes the monitored metric."""
        if self._run is not None:  # the sanity check runs before the run starts
            self._run.round.metric.end_validation(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks that every pruned weight is exactly zero, and applies stop rules."""
        if self._run is not None:
            self._run.end_epoch()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the table of all rounds."""
        if self._run is not None and self.settings.verbose:
            parts = [report.table(self.records, self.settings.monitor)]
            if 0 in self.records[TICKET_BRANCH]:
                parts.append(f"Cost, in trainings of round 0:\n{report.cost_table(self.records.cost())}")
            where = [f"Run folder: {self.run_folder}"]
            if self._folder is not None and self._folder.report.exists():
                where.append(f"Report: {self._folder.report}")
            trainer.print("\n" + "\n\n".join([*parts, "\n".join(where)]))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restores the Trainer. Finished rounds are already on disk."""
        if self._run is not None:
            with suppress(Exception):  # must not hide the exception that is being handled
                self._last_state = to_plain(self._run.state())
            if self.settings.verbose:
                where = f"{len(self.records)} finished rounds are in the run folder: {self.run_folder}"
                trainer.print(f"\nStopped. {where}\nTo resume: {self.how_to_resume}.", flush=True)
        self._close("failed", has_failed=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restores the Trainer."""
        self._close("success")

    def _before_training(self) -> bool:
        """Starts or resumes the run when training begins. Returns whether there is anything to train."""
        prepared, request = self._prepared, self._request
        self._request = FitRequest()  # the state in a checkpoint is needed only once
        if prepared is None:
            assert self._loop is not None, "only after setup"
            self._loop.trainer.print(
                "Nothing was trained, since the Trainer has already reached its limits. Create a new one for a "
                "new run."
            )
            return False
        self._folder, self._records = prepared.folder, Records()
        if prepared.folder.is_writer:
            self._mailbox.send(prepared.folder.path)
        if request.double_weights:
            prepared.module.load_state_dict(request.double_weights)
        if request.is_resumed:
            self._run = resume_run(prepared, request.state, self._records)
        else:
            self._run = begin_run(prepared, self._records)
        return self._run is not None

    def _after_round(self) -> bool:
        return self._run is not None and self._run.advance()

    def _after_batch(self) -> None:
        if self._run is not None:
            self._run.end_batch()

    def _before_epoch(self) -> None:
        if self._run is not None:
            self._run.save_rewind_point(between_epochs=True)

    def _after_saving(self, path: str, is_whole: bool) -> None:
        if self._run is not None:
            self._run.note_checkpoint(path, is_whole)

    def _progress_texts(self) -> dict[str, str]:
        return {} if self._run is None else {"round": self._run.round.progress}

    def _close(self, status: str, has_failed: bool = False) -> None:
        """Restores the Trainer and frees the run folder. May be called twice."""
        if self._run is not None:
            self._run.close(status)
        if self._loop is not None:
            self._loop.undo(has_failed)
        if self._prepared is not None:
            self._prepared.folder.unlock()
        self._run = self._loop = self._prepared = None
