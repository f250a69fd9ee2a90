r"""Train with DistributedDataParallel under torchrun, on any number of ranks.

    torchrun --nproc-per-node 4 examples/train_ddp.py
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nproc-per-node 2 --max-restarts 3 \
        examples/train_ddp.py --resume

With GPUs use the backend nccl; torch and JAX of each process use the GPU of its LOCAL_RANK.
"""

import os
from functools import partial

import piv
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    """Train and save checkpoints; with --resume, continue from the last one."""
    options = piv.arguments("ddp")
    dist.init_process_group("gloo")
    net, optimizer = piv.model()
    trained = DistributedDataParallel(net)
    journal = piv.Journal(options.folder, dist.get_rank())
    path = options.folder / "last.pt"
    # Processes that torchrun restarts resume as well.
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    step = 0
    with piv.data(options) as dataset:
        if options.resume or (restarted and path.exists()):
            checkpoint = torch.load(path, weights_only=True)
            net.load_state_dict(checkpoint["net"])
            optimizer.load_state_dict(checkpoint["optimizer"])
            dataset.load_state_dict(checkpoint["data"])
            step = checkpoint["step"]
        for batch in dataset:
            loss = piv.end_point_error(trained(batch.images), batch.flow_fields)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            journal.note(step, batch, loss, net)
            # The state is the same on every rank: rank 0 saves it.
            if step % options.save_every == 0 and dist.get_rank() == 0:
                checkpoint = {
                    "net": net.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "data": dataset.state_dict(),
                    "step": step,
                }
                piv.replace(path, partial(torch.save, checkpoint))
            if step >= options.steps:
                break
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
