"""Trainers that would lose batches without a word, recognised when they begin a pass.

Only the names of the functions on the stack are looked at, once a pass, so that nothing here needs
a trainer to be installed. What asks from a thread of its own cannot be seen.
"""

from __future__ import annotations

import sys
import warnings

LIGHTNING = ("lightning.pytorch.loops.", "pytorch_lightning.loops.")
PREPARED = ("DataLoaderShard.", "DataLoaderDispatcher.")


def check_caller(*, tracking: bool, world_size: int, position: int) -> None:
    """Warn of a trainer that will not go on exactly, refuse one that loses batches at once.

    Args:
        tracking: Whether somebody commits what was trained on.
        world_size: Number of processes that share the stream.
        position: Where the pass begins.

    Raises:
        RuntimeError: accelerate would share out batches that are this rank's own, or skip batches
            before a position that is already the right one.
    """
    lightning = accelerate = stateful = False
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        module = frame.f_globals.get("__name__", "")
        if module.startswith("torchdata.stateful_dataloader"):
            stateful = True
        elif module == "accelerate.data_loader":
            accelerate |= frame.f_code.co_qualname.startswith(PREPARED)
            skipped = getattr(frame.f_locals.get("self"), "skip_batches", 0)
            if skipped and position > 0:
                raise RuntimeError(
                    f"The dataset goes on at batch {position}, and the trainer would skip "
                    f"{skipped} more: set ignore_data_skip=True (transformers), leave out "
                    "skip_first_batches (accelerate)."
                )
        elif module.startswith(LIGHTNING):
            # Validation within a fit is met before the fit.
            lightning = module.endswith(".fit_loop")
            if lightning or module.endswith(".evaluation_loop"):
                break
    if accelerate and world_size > 1:
        raise RuntimeError(
            "accelerate shares out the batches of a prepared loader among the processes, but each "
            "already gets its own: do not prepare the loader, iterate over the dataset."
        )
    if tracking:
        return
    if lightning:
        _warn(
            "Lightning reads ahead and drops the state of loaders in some checkpoints: batches "
            "will be lost or repeated when this run is resumed. Add "
            "synthpix_torch.lightning.ResumeCallback(dataset) to the Trainer's callbacks."
        )
    elif accelerate and not stateful:
        _warn(
            "accelerate reads one batch ahead in a prepared loader: a state saved now lacks "
            "it. Do not prepare the loader, iterate over the dataset, and call "
            "accelerator.register_for_checkpointing(dataset)."
        )


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
