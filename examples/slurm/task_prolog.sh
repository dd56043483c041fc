#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# TaskProlog of slurmd (slurm.conf: TaskProlog=/etc/slurm/softslice/task_prolog.sh), as the user before each task: what it prints as "export NAME=VALUE"
# is the task's environment. A shard is a GiB: `sbatch --gres=shard:10` has 10 GiB, and at most that part of the GPU's time: jobs do not see each
# other's turns, and those that want the GPU at once each get less. Where Count is not 80, change shards_of_gpu below.
#
#     slurm.conf    GresTypes=gpu,shard         # and Gres=gpu:1,shard:80 in the node's line
#     gres.conf     Name=gpu File=/dev/nvidia0
#                   Name=shard Count=80 File=/dev/nvidia0        # its memory in GiB, less what the driver itself needs
#
# Whoever wants to get past it can: this is the task's own environment. Tested with made-up jobs on the simulated GPU; untested with slurmd.
set -eu
root=${SLURM_SOFTSLICE_ROOT:-/run/softslice-slurm}
library=${SLURM_SOFTSLICE_LIBRARY:-/usr/local/lib/softslice/libsoftslice.so}
gib_per_shard=${SLURM_SOFTSLICE_GIB_PER_SHARD:-1}
shards_of_gpu=${SLURM_SOFTSLICE_SHARDS_OF_GPU:-80}
shards=${SLURM_SHARDS_ON_NODE:-}
[ -n "$shards" ] || exit 0 # whole GPUs, or none
case $shards in *[!0-9]* | 0*) echo "print softslice: SLURM_SHARDS_ON_NODE is '$shards': no GPU"; echo "export CUDA_VISIBLE_DEVICES="; exit 0 ;; esac
[ -r "$library" ] || { echo "print softslice: $library is missing on this node: no GPU"; echo "export CUDA_VISIBLE_DEVICES="; exit 0; }
share=$((shards * 100 / shards_of_gpu))
[ "$share" -ge 1 ] || share=1
[ "$share" -le 100 ] || share=100
echo "export LD_PRELOAD=$library${LD_PRELOAD:+:$LD_PRELOAD}"
echo "export SOFTSLICE_VRAM=$((shards * gib_per_shard))GiB"
echo "export SOFTSLICE_COMPUTE=$share%"
echo "export SOFTSLICE_TENANT=slurm-$SLURM_JOB_ID"
echo "export SOFTSLICE_STATE_DIR=$root/$SLURM_JOB_ID"
