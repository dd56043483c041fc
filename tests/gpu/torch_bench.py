# SPDX-License-Identifier: Apache-2.0
"""PyTorch figures for bench.sh: rows of `bench`, key, value, where a smaller value is better."""
import statistics
import time

import torch


def median_us(step, rounds=7, repeat=200):
    times = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(repeat):
            step()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) / repeat * 1e6)
    return statistics.median(times)


def uncached():
    torch.empty(8 << 20, dtype=torch.uint8, device="cuda")
    torch.cuda.empty_cache()


def main():
    small = torch.ones(64, device="cuda")
    model = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.ReLU(),
                                torch.nn.Linear(512, 512)).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x = torch.randn(256, 512, device="cuda")
    big = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)

    def train():
        optimizer.zero_grad(set_to_none=True)
        model(x).square().mean().backward()
        optimizer.step()

    train()
    for name, step, repeat in (("small kernel", lambda: small.add_(1), 2000),
                               ("training step, 2 layers of 512", train, 200),
                               ("bf16 product 4096", lambda: big @ big, 100),
                               ("8 MiB past the cache", uncached, 100)):
        print(f"bench\ttorch.{name}\t{median_us(step, repeat=repeat):.2f} us")


if __name__ == "__main__":
    main()
