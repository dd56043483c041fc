# SPDX-License-Identifier: Apache-2.0
"""A small PyTorch matrix product: the least program that meets its allocator and cuBLAS."""
import torch

a = torch.randn(512, 512, device="cuda")
b = (a @ a).sum().item()
free, total = torch.cuda.mem_get_info()
print("torch", torch.__version__, "sum", b == b, "free", free, "total", total,
      "reserved", torch.cuda.memory_reserved(),
      "property", torch.cuda.get_device_properties(0).total_memory)
