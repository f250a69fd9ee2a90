"""Save all objects of a run as atomic steps: python examples/train_checkpointer.py [--resume]."""

import piv

from synthpix_torch import Checkpointer, RandomState


def main() -> None:
    """Train and save checkpoints; with --resume, continue from the last one."""
    options = piv.arguments("checkpointer")
    net, optimizer = piv.model()
    journal = piv.Journal(options.folder)
    folder = options.folder / "checkpoints"
    with (
        piv.data(options) as dataset,
        Checkpointer(folder, keep=3, every=options.save_every) as checkpoints,
    ):
        checkpoints.register(data=dataset, net=net, optimizer=optimizer, rng=RandomState())
        start = (checkpoints.restore() or 0) if options.resume else 0
        for step, batch in enumerate(dataset, start + 1):
            loss = piv.end_point_error(net(batch.images), batch.flow_fields)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            journal.note(step, batch, loss, net)
            # Without --resume the training starts again and replaces the steps of the last one.
            checkpoints.save(step, overwrite=not options.resume)
            if step >= options.steps:
                break


if __name__ == "__main__":
    main()
