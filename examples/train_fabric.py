"""Save the dataset with Lightning Fabric, on one process or several (DDP).

python examples/train_fabric.py [--resume]
torchrun --nproc-per-node 2 examples/train_fabric.py [--resume]
"""

import os

import piv
from lightning.fabric import Fabric


def main() -> None:
    """Train and save checkpoints; with --resume, continue from the last one."""
    options = piv.arguments("fabric")
    fabric = Fabric(accelerator="cpu", devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    fabric.launch()
    net, optimizer = fabric.setup(*piv.model())
    journal = piv.Journal(options.folder, fabric.global_rank)
    path, unfinished = options.folder / "last.ckpt", options.folder / "unfinished.ckpt"
    # The dataset needs no setup_dataloaders(): its batches are on the device already.
    with piv.data(options) as dataset:
        state = {"net": net, "optimizer": optimizer, "data": dataset, "step": 0}
        if options.resume:
            fabric.load(path, state)
        for batch in dataset:
            loss = piv.end_point_error(net(batch.images), batch.flow_fields)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            state["step"] += 1
            journal.note(state["step"], batch, loss, net)
            if state["step"] % options.save_every == 0:
                fabric.save(unfinished, state)
                if fabric.is_global_zero:
                    unfinished.replace(path)
            if state["step"] >= options.steps:
                break


if __name__ == "__main__":
    main()
