"""Save the dataset (a Stateful) with torch.distributed.checkpoint, on any number of ranks.

python examples/train_dcp.py [--resume]
torchrun --nproc-per-node 2 examples/train_dcp.py [--resume]
"""

import os
from typing import Any

import piv
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save


class Model:
    """Combine network and optimizer as torch.distributed.checkpoint requires (FSDP as well)."""

    def __init__(self, net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.net = net
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """Return both states under names that do not depend on the distribution over ranks."""
        net, optimizer = get_state_dict(self.net, self.optimizer)
        return {"net": net, "optimizer": optimizer}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both states."""
        set_state_dict(
            self.net,
            self.optimizer,
            model_state_dict=state_dict["net"],
            optim_state_dict=state_dict["optimizer"],
        )


def main() -> None:
    """Train and save checkpoints; with --resume, continue from the last one."""
    options = piv.arguments("dcp")
    several = "WORLD_SIZE" in os.environ
    if several:
        dist.init_process_group("gloo")
    net, optimizer = piv.model()
    trained = torch.nn.parallel.DistributedDataParallel(net) if several else net
    step = 0
    with piv.data(options) as dataset:
        journal = piv.Journal(options.folder, dataset.rank)
        state = {"model": Model(trained, optimizer), "data": dataset}
        if options.resume:
            newest = piv.last(options.folder)
            load(state, checkpoint_id=newest, no_dist=not several)
            step = int(newest.name.removeprefix("step-"))
        for batch in dataset:
            loss = piv.end_point_error(trained(batch.images), batch.flow_fields)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            journal.note(step, batch, loss, net)
            if step % options.save_every == 0:
                unfinished = options.folder / f"unfinished-{step}"
                save(state, checkpoint_id=unfinished, no_dist=not several)
                if dataset.rank == 0:
                    unfinished.replace(options.folder / f"step-{step}")
            if step >= options.steps:
                break
    if several:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
