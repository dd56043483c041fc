# SPDX-License-Identifier: Apache-2.0
"""share_work.py matmul|decode SECONDS [BEGIN]: a PyTorch load for share.py, from BEGIN (time.time()) on. matmul: products of large matrices, one
after the other. decode: for each "token" 48 small kernels and a wait, as a language model's decoding launches them. Prints
rounds in a second, and for decode the median and the 99th percentile of a token's time in us."""
import sys
import time

import torch


def main():
    kind, seconds = sys.argv[1], float(sys.argv[2])
    if kind == "matmul":
        a = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)

        def step():
            for _ in range(8):
                a @ a
            torch.cuda.synchronize()
    else:
        weight = torch.randn(24, 2048, 2048, device="cuda", dtype=torch.bfloat16)
        x = torch.randn(1, 2048, device="cuda", dtype=torch.bfloat16)

        def step():
            y = x
            for i in range(24):
                y = torch.tanh(y @ weight[i])
            torch.cuda.synchronize()
    for _ in range(5):
        step()
    begin = float(sys.argv[3]) if len(sys.argv) > 3 else time.time()
    time.sleep(max(0, begin - time.time()))
    start, times = time.perf_counter(), []
    while time.perf_counter() - start < seconds:
        before = time.perf_counter()
        step()
        times.append((time.perf_counter() - before) * 1e6)
    times.sort()
    print(len(times) / (time.perf_counter() - start), times[len(times) // 2], times[int(len(times) * 0.99)])


if __name__ == "__main__":
    main()
