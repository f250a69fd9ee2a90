"""Save the state with torchdata's StatefulDataLoader: train_stateful_dataloader.py [--resume]."""

from functools import partial

import piv
import torch
from torchdata.stateful_dataloader import StatefulDataLoader


def main() -> None:
    """Train and save checkpoints; with --resume, continue from the last one."""
    options = piv.arguments("stateful_dataloader")
    net, optimizer = piv.model()
    journal = piv.Journal(options.folder)
    path = options.folder / "last.pt"
    step = 0
    with piv.data(options) as dataset:
        # The dataset yields complete batches (batch_size=None) and refuses workers.
        loader = StatefulDataLoader(dataset, batch_size=None)
        if options.resume:
            checkpoint = torch.load(path, weights_only=True)
            net.load_state_dict(checkpoint["net"])
            optimizer.load_state_dict(checkpoint["optimizer"])
            loader.load_state_dict(checkpoint["data"])
            step = checkpoint["step"]
        for batch in loader:
            loss = piv.end_point_error(net(batch.images), batch.flow_fields)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            journal.note(step, batch, loss, net)
            if step % options.save_every == 0:
                checkpoint = {
                    "net": net.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "data": loader.state_dict(),
                    "step": step,
                }
                piv.replace(path, partial(torch.save, checkpoint))
            if step >= options.steps:
                break


if __name__ == "__main__":
    main()
