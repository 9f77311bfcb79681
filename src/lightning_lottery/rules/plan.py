"""What remains to be trained of a run."""

from lightning_lottery.storage import LAST, TICKET_BRANCH, RunFolder, RunState, round_name


def first_unfinished(folder: RunFolder, plan: list[tuple[int, str]]) -> int:
    """Finds the round at which a run resumes if there is no checkpoint.

    Args:
        folder: The run folder.
        plan: Round and branch of everything to train, in this order.

    Returns:
        The index in the plan; its length if everything is trained. A round is finished if it has a record and the
        result of its trained weights exists: the next ticket, or for the last ticket the weights themselves.
    """
    recorded = {(record.round, record.branch) for record in folder.read_records()}
    last = max(number for number, branch in plan if branch == TICKET_BRANCH)
    for index, (number, branch) in enumerate(plan):
        made_of_it = folder.ticket_path(number + 1) if number < last else folder.path / LAST
        if (number, branch) not in recorded or (branch == TICKET_BRANCH and not made_of_it.exists()):
            return index
    return len(plan)


def resume_position(
    state: RunState | None, plan: list[tuple[int, str]], unfinished: int
) -> tuple[RunState | None, int]:
    """Finds the place in the plan at which a run resumes after Lightning has loaded a checkpoint.

    Args:
        state: The state in the checkpoint; ``None`` without a checkpoint.
        plan: Round and branch of everything to train, in this order.
        unfinished: The index of the first unfinished round.

    Returns:
        The state and the index. The state is ``None`` if it was taken between two rounds or its round is finished.
    """
    if state is None or not state.moment:
        return None, unfinished
    at = plan.index((state.round, state.branch))
    return (state, at) if at >= unfinished else (None, unfinished)


def next_checkpoint(folder: RunFolder, plan: list[tuple[int, str]]) -> str | None:
    """The newest checkpoint of the unfinished round; ``None`` if there is none."""
    unfinished = first_unfinished(folder, plan)
    return None if unfinished == len(plan) else folder.newest_checkpoint(round_name(*plan[unfinished]))
