"""What is left to train of a run."""

from lightning_lottery.storage import LAST, TICKET_BRANCH, RunFolder, RunState, round_name


def first_unfinished(folder: RunFolder, plan: list[tuple[int, str]]) -> int:
    """The round at which a run goes on if there is no checkpoint of it.

    Args:
        folder: The run folder.
        plan: Round and branch of everything to train, in this order.

    Returns:
        The index in the plan; its length if all is done. A round is done if it is recorded and what is made of its
        trained weights is there: the next ticket, or after the last ticket these weights themselves.
    """
    recorded = {(record.round, record.branch) for record in folder.read_records()}
    last = max(number for number, branch in plan if branch == TICKET_BRANCH)
    for index, (number, branch) in enumerate(plan):
        made_of_it = folder.ticket_path(number + 1) if number < last else folder.path / LAST
        if (number, branch) not in recorded or (branch == TICKET_BRANCH and not made_of_it.exists()):
            return index
    return len(plan)


def place_of(state: RunState | None, plan: list[tuple[int, str]], unfinished: int) -> tuple[RunState | None, int]:
    """Where in its plan a run goes on that has loaded a checkpoint.

    Args:
        state: What the checkpoint held; ``None`` without one.
        plan: Round and branch of everything to train, in this order.
        unfinished: The index of the first unfinished round.

    Returns:
        The state, or ``None`` if it is from between two rounds or of a round that is finished; and the index.
    """
    if state is None or not state.moment:
        return None, unfinished
    at = plan.index((state.round, state.branch))
    return (state, at) if at >= unfinished else (None, unfinished)


def next_checkpoint(folder: RunFolder, plan: list[tuple[int, str]]) -> str | None:
    """The newest checkpoint of the round that was training; ``None`` if there is none, or if all is done."""
    unfinished = first_unfinished(folder, plan)
    return None if unfinished == len(plan) else folder.newest_checkpoint(round_name(*plan[unfinished]))
