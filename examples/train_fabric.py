"""Lightning Fabric saves the dataset by name: python examples/train_fabric.py [--resume]."""

import piv
from lightning.fabric import Fabric


def main() -> None:
    """Train."""
    options = piv.arguments("fabric")
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    net, optimizer = fabric.setup(*piv.model())
    journal = piv.Journal(options.folder, fabric.global_rank)
    path = options.folder / "last.ckpt"
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
                piv.replace(path, lambda file: fabric.save(file, state))
            if state["step"] >= options.steps:
                break


if __name__ == "__main__":
    main()
