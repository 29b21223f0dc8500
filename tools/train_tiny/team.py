"""One process for each GPU, started by torchrun, that train one model together.

    python -m torch.distributed.run --nproc-per-node 2 tools/train_tiny/train.py ...

Every process draws scenes of its own; gradients are averaged, and what depends on the clock is decided by process 0.
Without torchrun there is one process, and nothing here does anything.
"""

import os

import torch
import torch.distributed as dist


class Team:
    def __init__(self):
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.size > 1:
            if self.device == "cuda":
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            dist.init_process_group("nccl" if self.device == "cuda" else "gloo")

    @property
    def first(self):
        return self.rank == 0

    def say(self, text):
        if self.first:
            print(text, flush=True)

    @torch.no_grad()
    def share(self, tensors):
        """Give every process the first one's values."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    @torch.no_grad()
    def average(self, tensors):
        """Mean over the processes, in place, sent as one vector."""
        if self.size > 1:
            flat = torch.cat([t.flatten() for t in tensors])
            dist.all_reduce(flat)
            flat /= self.size
            torch._foreach_copy_(tensors, [part.view_as(t) for part, t in zip(flat.split([t.numel() for t in tensors]), tensors)])

    def agree(self, *values):
        """The first process's numbers, in every process."""
        if self.size == 1:
            return values
        numbers = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(numbers, 0)
        return tuple(numbers.tolist())

    def end(self):
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()
