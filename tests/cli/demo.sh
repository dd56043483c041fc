#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
# What `make demo` shows comes out as it says, on the simulated GPU.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

try scripts/demo --simulated
expect_status 0
expect_out '^ +greedy +8 GiB .*CUDA_ERROR_OUT_OF_MEMORY at its budget$'
expect_out '^ +neighbour +8 GiB .* finished$'
expect_out '^ +greedy +none .*once the GPU was full$'
expect_out '^ +neighbour +none .*CUDA_ERROR_OUT_OF_MEMORY'
expect_out '^ +training +30 % .* [0-9]+ %$'
expect_out '^ +service +none .* [0-9]+ %$'
expect_out 'No figure below comes from real hardware'

# In the shell that README.md sets up to try things: what is seen there is not real, and larger.
LD_LIBRARY_PATH=build/sim SOFTSIM_MEM=80G try scripts/demo
expect_status 0
expect_out 'GPU +a simulated one, 16 GiB: no other is to be seen in this shell'
expect_out '^ +greedy +8 GiB .*CUDA_ERROR_OUT_OF_MEMORY at its budget$'
done_testing
