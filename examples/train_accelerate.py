"""Train with accelerate, on one process or several; the dataset is not prepared.

python examples/train_accelerate.py [--resume]
accelerate launch --multi_gpu --num_processes 2 examples/train_accelerate.py [--resume]

Use --multi_gpu on CPUs, too: with --cpu accelerate's launcher starts one process, whatever
--num_processes says.
"""

import piv
from accelerate import Accelerator


class Progress:
    """Count the training steps; saved with the other states."""

    step = 0

    def state_dict(self) -> dict[str, int]:
        """Return the number of steps."""
        return {"step": self.step}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restore the number of steps."""
        self.step = state_dict["step"]


def main() -> None:
    """Train and save checkpoints; with --resume, continue from the last one."""
    options = piv.arguments("accelerate")
    accelerator = Accelerator(cpu=True)
    net, optimizer = accelerator.prepare(*piv.model())
    journal = piv.Journal(options.folder, accelerator.process_index)
    progress = Progress()
    with piv.data(options) as dataset:
        # Not prepared: accelerate would prefetch, and distribute the batches a second time.
        accelerator.register_for_checkpointing(dataset, progress)
        if options.resume:
            accelerator.load_state(str(piv.last(options.folder)))
        for batch in dataset:
            loss = piv.end_point_error(net(batch.images), batch.flow_fields)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            progress.step += 1
            journal.note(progress.step, batch, loss, accelerator.unwrap_model(net))
            if progress.step % options.save_every == 0:
                folder = options.folder / f"step-{progress.step}"
                unfinished = options.folder / f"unfinished-{progress.step}"
                accelerator.save_state(str(unfinished))
                accelerator.wait_for_everyone()
                if accelerator.is_main_process:
                    unfinished.replace(folder)
            if progress.step >= options.steps:
                break


if __name__ == "__main__":
    main()
