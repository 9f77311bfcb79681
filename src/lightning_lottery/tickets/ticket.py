"""A ticket: which weights survive, and the values they start from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_lottery.errors import TicketError
from lightning_lottery.files import local_path
from lightning_lottery.tickets.card import ModelCard
from lightning_lottery.tickets.file import read_file, write_file
from lightning_lottery.tickets.foreign import check_masks, masks_in_state_dict, masks_of_zeros
from lightning_lottery.tickets.hub import find_file, push, write_folder
from lightning_lottery.tickets.masked_weights import MaskedWeights
from lightning_lottery.tickets.network import check_is_network, misfits, starting_values, tensors_of, unset_buffers
from lightning_lottery.tickets.provenance import provenance, structure_of
from lightning_lottery.tickets.state_dict import read_checkpoint
from lightning_lottery.tickets.tensors import put
from lightning_lottery.tickets.transfer import Carried, StartFrom, carry
from lightning_lottery.tickets.values import values_for

_NO_CARD = ModelCard()


@dataclass(frozen=True, eq=False, repr=False)
class Ticket(MaskedWeights):
    """Masks with the weights to start from, and the provenance of both.

    Attributes:
        masks: A boolean tensor for each prunable parameter, ``True`` where a weight survives, keyed as in the
            LightningModule's ``state_dict``.
        weights: The starting values of all parameters and persistent buffers, keyed likewise. Pruned weights
            are exactly zero; the constructor masks the given values.
        round: The number of prunings behind the masks; 0 for the dense network and for masks from elsewhere.
        branch: ``"ticket"``, ``"search"``, or the name of the control; see :class:`RoundId`.
        provenance: How the ticket was found, as strings: criterion, scope, rewind, seed, versions.
        following: The names of masked parameters that density does not count, since they only follow the prunable
            ones: the biases and normalisations of removed channels (:class:`CoupledChannels`).

    Raises:
        TicketError: A mask is not boolean, or has no weight of its name and shape; or ``following`` names a
            parameter without a mask.
    """

    def __repr__(self) -> str:
        return (
            f"Ticket(round={self.round}, branch={self.branch!r}, density={self.density:.4f}, "
            f"kept={self.kept} of {self.prunable})"
        )

    @torch.no_grad()
    def apply(self, module: nn.Module) -> None:
        """Copies the starting values into a network in place. Pruned weights become exactly zero.

        The network's tensors stay on their devices. If anything does not fit, nothing is changed. Buffers that get
        their shape in the first batch, such as those of quantisation observers, fit before and after it. Values
        are set only once: later training changes all weights, including pruned ones.

        Args:
            module: A network with the ticket's parameters and buffers.

        Raises:
            TicketError: A parameter exists only in the network or only in the ticket, or a shape differs.
        """
        self.check_fits(module)
        targets = tensors_of(module)
        for name in targets:
            path, _, key = name.rpartition(".")
            put(module.get_submodule(path), key, self.weights[name])
        device = next((target.device for target in targets.values()), None)
        for name, layer in unset_buffers(module).items():
            if name in self.weights:
                setattr(layer, name.rpartition(".")[-1], self.weights[name].to(device, copy=True))

    def check_fits(self, module: nn.Module) -> None:
        """Checks that a network has the ticket's parameters and buffers.

        Args:
            module: Any network.

        Raises:
            TicketError: Names or shapes differ; the message names all of them.
        """
        check_is_network(module)
        if faults := misfits(self.masks, self.weights, module):
            raise TicketError(
                f"The ticket does not fit the network: {'; '.join(faults)}. To use what fits, write "
                "ticket.transfer(model).ticket."
            )

    def transfer(
        self, module: nn.Module, rename: Mapping[str, str] | None = None, weights: StartFrom = "ticket"
    ) -> "Transfer":
        """Makes a ticket for a network with other names, or with other shapes in some layers.

        The network is not changed. Call :meth:`apply` of the new ticket, or pass it to a callback.

        Args:
            module: The other network.
            rename: New names by patterns, for networks whose names differ. ``*`` stands for any characters, and in
                the new name for what it has matched: ``{"*": "backbone.*"}`` adds a prefix. The first pattern
                that matches counts.
            weights: What the new ticket starts from. ``"ticket"``: the ticket's values where they fit, elsewhere
                those of the network. ``"model"``: the network's values under the masks. ``"signs"``: the network's
                magnitudes with the signs of the ticket in masked layers (Zhou et al. 2019, arXiv:1905.01067; for
                signs of trained tickets, Oh et al. 2025, arXiv:2504.05357).

        Returns:
            The new ticket, and what was carried, skipped and left dense.

        Raises:
            ConfigurationError: The network has no prunable layer.
            TicketError: An argument is invalid, or no mask fits the network.
        """
        masks, values, following, carried = carry(
            self.masks, self.weights, self.following, module, rename or {}, weights
        )
        found = {name: value for name, value in self.provenance.items() if name != "weights"}
        described = {**found, "structure": structure_of(module), "transfer": weights}
        ticket = replace(self, masks=masks, weights=values, following=following, provenance=described)
        return Transfer(**vars(carried), ticket=ticket)

    def save(self, path: str | Path) -> None:
        """Writes the ticket as a safetensors file: the surviving values, and the masks packed to bits.

        Args:
            path: The file. It is written atomically.

        Raises:
            ConfigurationError: The path is a URL.
            TicketError: A buffer is quantised or nested and cannot be written.
        """
        write_file(local_path(path, "'ticket.safetensors'"), self)

    @classmethod
    def load(cls, path: str | Path, max_bytes: float | None = None) -> "Ticket":
        """Reads a ticket file and checks all of it, before it allocates memory. Executes no code in the file.

        Args:
            path: A file written by :meth:`save`, also by an older version.
            max_bytes: The largest size of masks and masked weights in memory. By default 256 MiB, or 2048 times
                the length of the file if that is more: enough for any network with a density of at least 0.1 %.

        Returns:
            The ticket, on the CPU, equal to the saved one bit for bit.

        Raises:
            ConfigurationError: ``max_bytes`` is not a number of at least 0, or the path is a URL.
            FileNotFoundError: The file does not exist.
            TicketError: The file is damaged or not a ticket, or takes more than ``max_bytes``.
        """
        content = read_file(local_path(path, "'ticket.safetensors'"), max_bytes)
        return cls.masked(**vars(content))

    def with_weights(self, source: nn.Module | Mapping[str, Any] | str | Path) -> "Ticket":
        """The same masks and provenance with other values, for example those of the trained network.

        Args:
            source: A network, a state dict, a Lightning checkpoint, or the path of a file that contains one of the
                latter. Pruned weights must be zero in it, as after a round or with :class:`TicketCallback`.

        Returns:
            The ticket, on the CPU; this one if the values are its own. It shares no memory with the source.

        Raises:
            FileNotFoundError: The file does not exist.
            TicketError: Names or shapes differ, pruned weights are not zero, or survivors are, as in later rounds.
        """
        weights = values_for(self.masks, self.weights, source)
        trained = replace(self, weights=weights, provenance={**self.provenance, "weights": "trained"})
        return self if trained.fingerprint == self.fingerprint else trained

    def save_pretrained(self, folder: str | Path, card: ModelCard = _NO_CARD) -> None:
        """Writes a folder that can be uploaded to a model hub as it is.

        It contains ``ticket.safetensors``, ``config.json`` with all numbers of the ticket, and the model card
        ``README.md``. Files that this method has written are replaced, unless the card was edited since. Other
        files stay.

        Args:
            folder: The folder.
            card: Results, a description, and entries of the header for the model card.

        Raises:
            ConfigurationError: The path is a URL.
            FolderError: A file cannot be written. Existing files stay as they are.
            TicketError: The path is a file, the folder has other files of these names, the card was edited, or the
                ticket cannot be written.
        """
        write_folder(self, folder, card)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        max_bytes: float | None = None,
    ) -> "Ticket":
        """Reads a ticket from a folder of :meth:`save_pretrained`, or from a model hub.

        Args:
            source: The folder, or the name of a repository on the Hugging Face hub, such as ``"user/name"``
                (needs the extra ``hub``). A folder of that name comes first.
            revision: A branch, tag or commit of the repository.
            token: For repositories that are not public; by default the one of ``hf auth login``.
            max_bytes: As for :meth:`load`.

        Returns:
            The ticket, on the CPU.

        Raises:
            ConfigurationError: The path is a URL, or huggingface_hub is not installed.
            FileNotFoundError: The folder does not exist.
            TicketError: The folder contains no ticket, the ticket is damaged, or it cannot be loaded from the hub.
        """
        return cls.load(find_file(source, revision, token), max_bytes)

    def push_to_hub(
        self,
        repo_id: str,
        card: ModelCard = _NO_CARD,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Add the ticket",
    ) -> str:
        """Uploads the folder of :meth:`save_pretrained` to the Hugging Face hub (needs the extra ``hub``).

        Args:
            repo_id: The repository, such as ``"user/name"``. It is made if it does not exist.
            card: Results, a description, and entries of the header for the model card.
            private: Whether a new repository is private; by default as the user has chosen there.
            token: By default the one of ``hf auth login``.
            commit_message: Of the upload.

        Returns:
            The URL of the commit.

        Raises:
            ConfigurationError: huggingface_hub is not installed.
            LotteryError: The hub refuses, or cannot be reached.
        """
        return push(self, repo_id, card, private, token, commit_message)

    @classmethod
    def from_model(cls, module: nn.Module, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> "Ticket":
        """Makes a ticket of a network that something else has pruned: weights that are exactly zero are pruned.

        Args:
            module: The network. Its values become the starting values.
            include: Patterns (``*``, ``?``, ``[…]``) of names of parameters that are prunable in addition to the
                matrices and kernels that a forward pass multiplies by.
            exclude: Patterns of names of parameters that are not prunable; ``"frozen"`` means those not trained.

        Returns:
            The ticket, on the CPU. It shares no memory with the network.

        Raises:
            ConfigurationError: A pattern matches nothing, the network has nothing prunable, or it has masks of
                ``torch.nn.utils.prune``, which :meth:`from_state_dict` reads.
            TicketError: All weights of a layer are zero.
        """
        masks = masks_of_zeros(module, include, exclude)
        ticket = cls(masks, starting_values(module), provenance=provenance(module, None, {"source": "from_model"}))
        ticket.check_fits(module)
        return ticket

    @classmethod
    def from_masks(cls, masks: Mapping[str, Tensor], module: nn.Module) -> "Ticket":
        """Makes a ticket of masks that something else has made.

        Args:
            masks: Boolean tensors, ``True`` where a weight survives, by the names of parameters or layers.
            module: The network. Its values become the starting values.

        Returns:
            The ticket, on the CPU. It shares no memory with masks or network.

        Raises:
            TicketError: A mask is not boolean, does not fit the network, or keeps nothing; the message names all
                that do not fit.
        """
        made = check_masks(masks, module)
        ticket = cls(made, starting_values(module), provenance=provenance(module, None, {"source": "from_masks"}))
        ticket.check_fits(module)
        return ticket

    @classmethod
    def from_state_dict(
        cls,
        state_dict: Mapping[str, Any] | str | Path,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        masks: Mapping[str, Any] | str | Path | None = None,
    ) -> "Ticket":
        """Makes a ticket of a state dict, without its network.

        With masks of ``torch.nn.utils.prune`` (pairs of ``*_orig`` and ``*_mask``), these are the masks. Otherwise
        the exact zeros in floating-point tensors of two or more dimensions are pruned. Such tensors include
        embeddings: leave them out with ``exclude``, or load the network and use :meth:`from_model`.

        Args:
            state_dict: A state dict, a Lightning checkpoint, or the path of a file that contains one. Files are
                loaded with ``weights_only=True``, so that no code in them is executed.
            include: Patterns of names of tensors that are prunable, too.
            exclude: Patterns of names of tensors that are not.
            masks: The masks, if they are elsewhere: tensors of booleans, or of zeros and ones, by the names of
                weights or layers, or the path of a file that contains them.

        Returns:
            The ticket, on the CPU, with the names that the network has without masks.

        Raises:
            ConfigurationError: A pattern matches nothing.
            FileNotFoundError: The file does not exist.
            TicketError: The file cannot be read, a key does not fit, or a layer keeps nothing; the message names
                all keys that do not fit.
        """
        content = read_checkpoint(state_dict) if isinstance(state_dict, (str, Path)) else state_dict
        given = read_checkpoint(masks) if isinstance(masks, (str, Path)) else masks
        found, weights = masks_in_state_dict(content, include, exclude, given)
        return cls(found, weights, provenance=provenance(None, None, {"source": "from_state_dict"}))


@dataclass(frozen=True)
class Transfer(Carried):
    """The result of :meth:`Ticket.transfer`. Printing it shows what was carried over.

    Attributes:
        ticket: A ticket for the other network.
        carried: The names in that network of all masks and values that come from the ticket.
        skipped: What was not carried over, by its name in the ticket, each with the reason.
        left_dense: The prunable parameters of the network for which the ticket has no mask.
    """

    ticket: Ticket

    def __str__(self) -> str:
        masks = [name for name in self.ticket.prunable_masks if name not in self.left_dense]
        lines = [f"carried {len(masks)} masks, density of the network {self.ticket.density:.4f}"]
        lines += [f"skipped {name}: {reason}" for name, reason in self.skipped.items()]
        lines += [f"left dense {name}" for name in self.left_dense]
        return "\n".join(lines)
