"""Starts a run: a new one at its first round, or an earlier one where it was interrupted."""

from dataclasses import replace

from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from lightning_lottery._lightning import RoundsFit
from lightning_lottery.errors import TrainingError
from lightning_lottery.masks import fingerprint
from lightning_lottery.plain import first_of
from lightning_lottery.preflight import Prepared
from lightning_lottery.pruning import Pruner, layers_of
from lightning_lottery.rounds.coupled import find_channels, keep_channels, kept_channels
from lightning_lottery.rounds.last_ticket import LastTicket
from lightning_lottery.rounds.next_masks import NextMasks
from lightning_lottery.rounds.next_ticket import NextTicket
from lightning_lottery.rounds.recorder import Recorder
from lightning_lottery.rounds.rewind_point import RewindPoint, pending_points
from lightning_lottery.rounds.round import Round
from lightning_lottery.rounds.run import Run, shortened
from lightning_lottery.rounds.search_length import search_length
from lightning_lottery.rules import Plan, make_control
from lightning_lottery.storage import Records, RunState
from lightning_lottery.tickets import RoundId, Ticket, dense_ticket, masked_parameters


def begin_run(prepared: Prepared, records: Records) -> Run:
    """Starts a new run. The network must have its initial weights.

    Args:
        prepared: The run.
        records: Takes the record of every finished round.

    Raises:
        LotteryError: A criterion or control fails, or a file cannot be written.
    """
    settings, module, folder = prepared.settings, prepared.module, prepared.folder
    parameters = dict(prepared.selection.parameters)
    if settings.start is not None:
        settings.start.apply(module)
    fit = RoundsFit.begin(prepared.loop)
    coupling = find_channels(prepared, fit)
    pruner = settings.plan(layers_of(module, parameters), coupling)
    if settings.verbose:
        for reason, names in pruner.units.kept_whole().items():
            fit.trainer.print(f"Kept whole: {first_of(names)} ({reason}).")
    dense = dense_ticket(module, parameters, settings.methods(), settings.start, pruner.units.following)
    seed: str = fit.trainer.strategy.broadcast(dense.provenance["seed"])  # one seed for all processes
    dense = replace(dense, provenance={**dense.provenance, "seed": seed})
    pending, search = pending_points(settings.rewind, fit), search_length(settings, fit)
    next_masks = NextMasks(pruner, fit, module, parameters, seed, coupling)
    _try_controls(prepared, pruner, dense)
    next_masks.try_out(masked_parameters(dense, module)[1], dense.weights, is_first=settings.prune_at_init)
    folder.clear()  # only after everything that may raise an error
    keep_channels(prepared, coupling)
    rewind_point = RewindPoint.begin(settings, fit, module, folder, pending, search, dense)
    prepared = prepared.described(counts=pruner.counts, provenance=dense.provenance)
    tickets = NextTicket(prepared, next_masks, rewind_point)
    plan, ticket = Plan.of(settings), dense
    if settings.prune_at_init:
        ticket = tickets.make(plan.first, None)
    if settings.prune_at_init or settings.start is not None:
        # The optimizers were created for other weights.
        rewind_point.rewind(ticket, settings.same_data_order)
    return Run(
        prepared=prepared,
        fit=fit,
        records=records,
        recorder=Recorder(settings, fit, folder, records, prepared.selection.sizes),
        rewind_point=rewind_point,
        tickets=tickets,
        last_ticket=LastTicket(fit, module, folder),
        plan=plan,
        round=Round.begin(ticket, module, fit, settings, folder),
    )


def resume_run(prepared: Prepared, state: RunState | None, records: Records) -> Run | None:
    """Resumes the run in the folder.

    Args:
        prepared: The run.
        state: The state in the checkpoint that Lightning has loaded; ``None`` restarts the first unfinished round.
        records: Takes the record of every finished round.

    Returns:
        The run; ``None`` if it is finished already.

    Raises:
        LotteryError: The run folder is incomplete or does not belong to the checkpoint.
    """
    settings, module, folder = prepared.settings, prepared.module, prepared.folder
    parameters = dict(prepared.selection.parameters)
    folder.remove_leftovers()
    rewind_point, fit = RewindPoint.restored(settings.rewind, prepared.loop, module, folder)
    for record in folder.read_records():
        records.append(record)
    recorder = Recorder(settings, fit, folder, records, prepared.selection.sizes)
    last_ticket = LastTicket(fit, module, folder)
    plan = shortened(Plan.of(settings), settings, records, fit)
    if prepared.description.plan != plan.names:  # killed right after a stop rule, or an older version
        prepared = prepared.described(plan=plan.names)
    entry, state = plan.resume(folder, state)
    if state is not None and (reason := state.reason_to_restart(module, fit.can_resume_within_rounds())):
        recorder.say(f"{state.id} restarts: {reason}.")
        state = None
    if entry is None:
        recorder.say(f"The run in {folder.path} is already finished.")
        last_ticket.restore()
        recorder.close()
        return None
    recorder.say(f"Resuming the run in {folder.path} at {entry}.")
    records.keep(plan.before(entry))
    if state is None and records:
        fit.set_logged_steps(records[-1].logged_steps)
    recorder.log_again()
    seed = rewind_point.dense().provenance["seed"]
    coupling = kept_channels(prepared)
    pruner = settings.plan(layers_of(module, parameters), coupling)
    next_masks = NextMasks(pruner, fit, module, parameters, seed, coupling)
    tickets = NextTicket(prepared, next_masks, rewind_point)
    ticket = _ticket_to_resume(prepared, plan, entry, tickets, rewind_point)
    if state is None:
        rewind_point.rewind(ticket, settings.same_data_order)
    else:
        _continue(state, ticket, fit, module, rewind_point, recorder)
    current = Round.begin(ticket, module, fit, settings, folder)
    if state is not None:
        current.restore(state, module)
    return Run(prepared, fit, records, recorder, rewind_point, tickets, last_ticket, plan, current)


def _ticket_to_resume(
    prepared: Prepared, plan: Plan, entry: RoundId, tickets: NextTicket, rewind_point: RewindPoint
) -> Ticket:
    """The ticket of the unfinished round, from the run folder if it was made already."""
    settings, folder = prepared.settings, prepared.folder
    if folder.ticket_path(entry).exists():
        return folder.read_ticket(folder.ticket_name(entry))
    if settings.prune_at_init and entry == plan.first:
        # Loads the data for scoring before round 1.
        rewind_point.rewind(rewind_point.dense(), same_data_order=True)
    return tickets.make(entry, None)


def _continue(
    state: RunState,
    ticket: Ticket,
    fit: RoundsFit,
    module: nn.Module,
    rewind_point: RewindPoint,
    recorder: Recorder,
) -> None:
    """Restores the state in the middle of a round."""
    is_dense = state.round == 0  # its masks only list the prunable parameters, which may have become fewer
    if not is_dense and fingerprint(ticket.masks) != state.masks_hash:
        raise TrainingError(
            f"The masks of {state.id} in the run folder differ from those of the checkpoint. Use another "
            "checkpoint of this run, or pass the run folder as ckpt_path to restart the round."
        )
    assert state.moment is not None, "only within a round"
    if not state.moment.is_exact:
        recorder.say("The checkpoint was written during an interrupted batch, so this batch is repeated.")
    rewind_point.set_length(ticket.id)
    state.module.restore(module)
    fit.restore_moment(state.moment, rewind_point.data_seed(ticket))


def _try_controls(prepared: Prepared, pruner: Pruner, dense: Ticket) -> None:
    """Tries every control before any training, on random masks of its first and last round."""
    module, controls = prepared.module, prepared.settings.branches.values()
    if not controls:
        return
    dense = dense.to(dict(module.named_parameters()))
    with isolate_rng():  # random numbers drawn by a control must not change the training
        for control in controls:
            control.check(dense, module)
            rounds = control.rounds(prepared.settings.controlled_rounds)
            for number in sorted({min(rounds), max(rounds)}) if rounds else ():
                masks = pruner.random_masks(dense.masks, number, seed=0)
                make_control(control, replace(dense, masks=masks, round=number), dense, module, seed=0)
