"""The names of the files in a run folder."""

DESCRIPTION = "lottery.json"
RECORDS = "rounds.jsonl"
REWIND_WEIGHTS = "rewind.safetensors"  # the weights that rounds return to
REWIND_STATE = "rewind.pt"  # everything else that they return to
LAST_TICKET = "last.pt"  # the last ticket after its training
CHANNELS = "channels.pt"  # the channels of the network that depend on each other, if the pattern needs them
CHECKPOINTS = "newest.json"  # the paths of the newest and best checkpoints of each round
REPORT = "report.html"  # a page for people, and its figures
_FIGURES = (
    "published",
    "published_reinitialize",
    "learning_curves",
    "control_curves",
    "steps",
    "layers",
    "first_layer",
)
# What is added to the name of the page, for each figure.
PICTURES = {
    "accuracy": "",
    **{name: f"_{name}" for name in _FIGURES},
}
TESTS = "tests.jsonl"  # metrics on the test set
TICKETS = "tickets"
# The files of a run, which overwrite=True replaces. The lock belongs to the process that trains.
FILES = (
    *(DESCRIPTION, RECORDS, REWIND_WEIGHTS, REWIND_STATE, LAST_TICKET, CHANNELS, CHECKPOINTS, TESTS),
    *(REPORT, *(f"report{ending}.png" for ending in PICTURES.values())),
)
LOCK = "lottery.lock"
