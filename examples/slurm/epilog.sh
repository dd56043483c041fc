#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Epilog of slurmd (slurm.conf: Epilog=/etc/slurm/softslice/epilog.sh), as root at the end of each job on a node.
set -eu
root=${SLURM_SOFTSLICE_ROOT:-/run/softslice-slurm}
case $SLURM_JOB_ID in '' | *[!0-9]*) exit 0 ;; esac
rm -rf "${root:?}/$SLURM_JOB_ID"
