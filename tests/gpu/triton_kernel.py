# SPDX-License-Identifier: Apache-2.0
"""The Triton kernel of frameworks.py: Triton reads a kernel's source from its file."""
import triton
import triton.language as tl


@triton.jit
def double(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, 2 * tl.load(x + at, mask=at < n), mask=at < n)
