"""A ticket as a folder for model hubs: the file, config.json and the model card."""

import json
import re
import tempfile
from importlib.util import find_spec
from pathlib import Path

from lightning_lottery.errors import ConfigurationError, LotteryError, TicketError
from lightning_lottery.files import local_path, write_atomically
from lightning_lottery.tickets.card import LIBRARY, ModelCard, is_card
from lightning_lottery.tickets.file import write_file
from lightning_lottery.tickets.header import FORMAT, VERSION
from lightning_lottery.tickets.masked_weights import MaskedWeights
from lightning_lottery.tickets.summary import TicketSummary

TICKET_FILE, CONFIG, CARD = "ticket.safetensors", "config.json", "README.md"
_EXAMPLE = "'my-ticket'"


def write_folder(ticket: MaskedWeights, folder: str | Path, card: ModelCard, name: str | None = None) -> None:
    """Writes the folder; see :meth:`Ticket.save_pretrained`.

    Args:
        ticket: The ticket.
        folder: The folder. Files of an earlier ticket are replaced; other files stay.
        card: What the model card says beyond the ticket.
        name: What the model card tells users to load; by default the name of the folder.

    Raises:
        ConfigurationError: The path is a URL.
        FolderError: A file cannot be written.
        TicketError: The path is a file, or the folder has other files of these names.
    """
    path = local_path(folder, _EXAMPLE)
    if path.is_file():
        raise TicketError(f"{path} is a file. Write the path of a folder, or ticket.save(path) for a file.")
    _check_not_foreign(path)
    summary = TicketSummary.of(ticket)
    config = {
        "library_name": LIBRARY,
        "format": FORMAT,
        "version": VERSION,
        "file": TICKET_FILE,
        **summary.to_json(),
        "metrics": dict(card.metrics),
        "dense_metrics": dict(card.dense_metrics),
    }
    write_file(path / TICKET_FILE, ticket)
    write_atomically(path / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    write_atomically(path / CARD, card.to_markdown(summary, name or path.resolve().name).encode())


def _check_not_foreign(path: Path) -> None:
    """Refuses to replace a README.md or config.json that is not that of a ticket."""
    for name, is_ours in ((CONFIG, _is_config), (CARD, is_card)):
        if (path / name).exists() and not is_ours((path / name).read_bytes()):
            raise TicketError(
                f"{path / name} is there already, and does not belong to a ticket. Choose another folder."
            )


def _is_config(content: bytes) -> bool:
    try:
        return bool(json.loads(content)["library_name"] == LIBRARY)
    except (ValueError, LookupError, TypeError):
        return False


def find_file(source: str | Path, revision: str | None, token: str | None) -> Path:
    """The ticket file of a folder, or of a repository on a model hub.

    Args:
        source: A folder, or ``"user/name"`` if there is no such folder.
        revision: A branch, tag or commit of the repository.
        token: For repositories that are not public.

    Raises:
        ConfigurationError: The repository cannot be asked, since huggingface_hub is not installed.
        FileNotFoundError: There is no such folder, and it is not the name of a repository.
        TicketError: The path is a file, or there is no ticket in the folder or repository.
    """
    path = local_path(source, _EXAMPLE)
    if path.is_file():
        raise TicketError(f"{path} is a file, not a folder. Write Ticket.load(path).")
    if path.is_dir():
        if not (path / TICKET_FILE).is_file():
            there = ", ".join(sorted(entry.name for entry in path.iterdir())[:10]) or "nothing"
            raise TicketError(
                f"{path} has no {TICKET_FILE}: it contains {there}. Write the path of a folder that "
                "ticket.save_pretrained has written, or Ticket.load(path) for a file."
            )
        return path / TICKET_FILE
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise FileNotFoundError(f"There is no folder {path}.")
    return _downloaded(str(source), revision, token)


def _downloaded(repo_id: str, revision: str | None, token: str | None) -> Path:
    _check_hub(f"There is no folder {repo_id!r}. To look for it on the model hub")
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(repo_id, TICKET_FILE, revision=revision, token=token, library_name=LIBRARY)
    except Exception as error:  # of kinds that differ between versions and transports
        raise TicketError(
            f"There is no folder {repo_id!r}, and the model hub gave no {TICKET_FILE} of that name: "
            f"{_first_line(error)}"
        ) from error
    return Path(path)


def push(
    ticket: MaskedWeights, repo_id: str, card: ModelCard, private: bool | None, token: str | None, message: str
) -> str:
    """Uploads a ticket; see :meth:`Ticket.push_to_hub`.

    Raises:
        ConfigurationError: huggingface_hub is not installed.
        LotteryError: The model hub refuses, or cannot be reached.
        TicketError: The ticket cannot be written.
    """
    _check_hub("To upload a ticket")
    from huggingface_hub import HfApi

    hub = HfApi(token=token, library_name=LIBRARY)
    with tempfile.TemporaryDirectory() as folder:
        write_folder(ticket, folder, card, repo_id)  # before the repository is made
        try:
            made = hub.create_repo(repo_id, private=private, exist_ok=True)
            return hub.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message=message).commit_url
        except Exception as error:  # of kinds that differ between versions and transports
            raise LotteryError(f"{repo_id!r} cannot be uploaded: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _check_hub(what: str) -> None:
    if find_spec("huggingface_hub") is None:
        raise ConfigurationError(f"{what}, write pip install 'lightning-lottery[hub]'.")
