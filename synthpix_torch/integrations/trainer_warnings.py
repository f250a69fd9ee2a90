"""Warn about trainers and loaders where they would silently lose batches.

A trainer is recognised by the names of the functions on the call stack, once per pass, so no
trainer has to be installed. Of those that fetch batches from a background thread only torchdata's
nodes are detected.
"""

from __future__ import annotations

import sys
import warnings

LIGHTNING = ("lightning.pytorch.loops.", "pytorch_lightning.loops.")
PREPARED = ("DataLoaderShard.", "DataLoaderDispatcher.")


def check_trainer(
    *, tracking: bool, world_size: int, position: int, interrupted: bool = False
) -> None:
    """Warn about a trainer that will not resume exactly; refuse one that loses batches at once.

    Args:
        tracking: Whether batches are being committed (`SynthPixDataset.track`).
        world_size: Number of processes that share the stream.
        position: Number of the first batch of the pass.
        interrupted: Whether the pass before was broken off.

    Raises:
        RuntimeError: accelerate would distribute batches that already belong to this rank alone, or
            skip batches although the position is already correct.
    """
    lightning = accelerate = stateful = prefetched = False
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        module = frame.f_globals.get("__name__", "")
        if module.startswith("torchdata.stateful_dataloader"):
            stateful = True
        elif module == "torchdata.nodes._populate_queue":
            prefetched = True
        elif module == "accelerate.data_loader":
            accelerate |= frame.f_code.co_qualname.startswith(PREPARED)
            skipped = getattr(frame.f_locals.get("self"), "skip_batches", 0)
            if skipped and position > 0:
                raise RuntimeError(
                    f"The dataset resumes at batch {position}, and the trainer would skip "
                    f"{skipped} more batches: set ignore_data_skip=True (transformers) or remove "
                    "skip_first_batches (accelerate)."
                )
        elif module.startswith(LIGHTNING):
            # Validation runs inside a fit: its loop is found first and ends the search.
            lightning = module.endswith(".fit_loop")
            if lightning or module.endswith(".evaluation_loop"):
                break
    if accelerate and world_size > 1:
        raise RuntimeError(
            "accelerate distributes the batches of a prepared loader among the processes, but each "
            "process already receives its own: do not prepare the loader, iterate over the dataset."
        )
    if tracking:
        return
    if lightning:
        _warn(
            "Lightning prefetches batches and omits the state of loaders from some checkpoints: "
            "batches will be lost or repeated when this run is resumed. Add "
            "synthpix_torch.lightning.ResumeCallback(dataset) to the Trainer's callbacks."
        )
    elif prefetched and interrupted:
        _warn(
            "The loop before was broken off, and batches that torchdata had prefetched for it are "
            "lost. To keep them, call loader.load_state_dict(loader.state_dict()) before the loop "
            "begins again, or iterate over the dataset, which prefetches itself."
        )
    elif accelerate and not stateful:
        _warn(
            "accelerate prefetches one batch in a prepared loader: a state saved now skips that "
            "batch. Do not prepare the loader, iterate over the dataset, and call "
            "accelerator.register_for_checkpointing(dataset)."
        )


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
