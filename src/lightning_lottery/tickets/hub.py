"""A ticket as a folder for model hubs: the file, config.json and the model card."""

import hashlib
import json
import re
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from lightning_lottery.errors import ConfigurationError, LotteryError, TicketError
from lightning_lottery.files import local_path, written_atomically
from lightning_lottery.plain import finite, first_line
from lightning_lottery.tickets.card import LIBRARY, ModelCard
from lightning_lottery.tickets.file import write_file
from lightning_lottery.tickets.header import FORMAT, VERSION
from lightning_lottery.tickets.masked_weights import MaskedWeights
from lightning_lottery.tickets.summary import TicketSummary

TICKET_FILE, CONFIG, CARD = "ticket.safetensors", "config.json", "README.md"
_EXAMPLE = "'my-ticket'"


def write_folder(ticket: MaskedWeights, folder: str | Path, card: ModelCard) -> None:
    """Writes the folder; see :meth:`Ticket.save_pretrained`.

    Args:
        ticket: The ticket.
        folder: The folder. Files of an earlier ticket are replaced; other files stay.
        card: What the model card says beyond the ticket.

    Raises:
        ConfigurationError: The path is a URL.
        FolderError: A file cannot be written.
        TicketError: An argument is of another kind, the path is a file, or the folder has files of these names
            that :meth:`Ticket.save_pretrained` has not written.
    """
    if not isinstance(card, ModelCard) or not isinstance(folder, (str, Path)):
        raise TicketError(f"Pass a folder and a ModelCard(...), but got {folder!r:.200} and {card!r:.200}.")
    path = local_path(folder, _EXAMPLE)
    if path.is_file():
        raise TicketError(f"{path} is a file. Write the path of a folder, or ticket.save(path) for a file.")
    _check_not_foreign(path)
    summary = TicketSummary.of(ticket)
    text = card.to_markdown(summary, path.resolve().name).encode()
    config = {
        "library_name": LIBRARY,
        "format": FORMAT,
        "version": VERSION,
        "file": TICKET_FILE,
        **summary.to_json(),
        "metrics": finite(dict(card.metrics)),
        "dense_metrics": finite(dict(card.dense_metrics)),
        "card_sha256": _hash_of_text(text),
    }
    # All are written under temporary names before any of them is renamed.
    with written_atomically(path / CARD) as readme, written_atomically(path / CONFIG) as numbers:
        readme.write_bytes(text)
        numbers.write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        write_file(path / TICKET_FILE, ticket)


def _check_not_foreign(path: Path) -> None:
    """Refuses to replace files that were not written by this module, or were edited since."""
    there = [name for name in (TICKET_FILE, CONFIG, CARD) if (path / name).exists()]
    try:
        config = json.loads((path / CONFIG).read_bytes())
        is_ours, expected = config["library_name"] == LIBRARY, config["card_sha256"]
    except (OSError, ValueError, LookupError, TypeError):
        is_ours, expected = False, None
    if there and not is_ours:
        raise TicketError(
            f"{path / there[0]} exists already, but save_pretrained has not written it. Choose another folder."
        )
    if CARD in there and _hash_of_text((path / CARD).read_bytes()) != expected:
        raise TicketError(
            f"{path / CARD} was edited since it was written. Move it away, or choose another folder. Your text "
            "can be passed as ModelCard(description=..., header=...)."
        )


def _hash_of_text(content: bytes) -> str:
    """A hash that does not depend on how lines end, which Git changes on Windows."""
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


def find_file(source: str | Path, revision: str | None, token: str | None) -> Path:
    """The ticket file of a folder, or of a repository on a model hub.

    Args:
        source: A folder, or else the name of a repository, such as ``"user/name"``.
        revision: A branch, tag or commit of the repository.
        token: For repositories that are not public.

    Raises:
        ConfigurationError: The repository cannot be asked, since huggingface_hub is not installed.
        FileNotFoundError: The folder does not exist, and a repository cannot have this name.
        TicketError: The path is a file, or the folder or repository contains no ticket.
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
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(source)):
        raise FileNotFoundError(
            f"The folder {path} does not exist. (Names on a model hub have the form user/name.)"
        )
    return _downloaded(str(source), revision, token)


def _downloaded(repo_id: str, revision: str | None, token: str | None) -> Path:
    _check_hub(f"The folder {repo_id!r} does not exist. To look for it on the model hub")
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(repo_id, TICKET_FILE, revision=revision, token=token, library_name=LIBRARY)
    except Exception as error:  # of kinds that differ between versions and transports
        raise TicketError(
            f"The folder {repo_id!r} does not exist, and {TICKET_FILE} of a repository of that name cannot be "
            f"loaded: {type(error).__name__}: {first_line(error)}"
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
        write_folder(ticket, folder, replace(card, repo_id=repo_id))  # before the repository is made
        try:
            # Early versions would send None to the hub, instead of leaving it out.
            made = (
                hub.create_repo(repo_id, exist_ok=True)
                if private is None
                else hub.create_repo(repo_id, private=private, exist_ok=True)
            )
            there = set(hub.list_repo_files(made.repo_id))
            if {CARD, CONFIG} & there and TICKET_FILE not in there:
                raise LotteryError("it has a README.md or config.json, but no ticket. Choose another repository")
            write_folder(ticket, folder, replace(card, repo_id=made.repo_id))  # with the name of the user
            return hub.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message=message).commit_url
        except Exception as error:  # of kinds that differ between versions and transports
            raise LotteryError(f"{repo_id!r} cannot be uploaded: {first_line(error)}") from error


def _check_hub(what: str) -> None:
    if find_spec("huggingface_hub") is None:
        raise ConfigurationError(f"{what}, write pip install 'lightning-lottery[hub]'.")
