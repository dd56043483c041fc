#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Prolog of slurmd (slurm.conf: Prolog=/etc/slurm/softslice/prolog.sh), as root at the start of each job on a node: the job's own state directory, so
# that all its steps and tasks here share one budget.
set -eu
root=${SLURM_SOFTSLICE_ROOT:-/run/softslice-slurm}
case $SLURM_JOB_ID in '' | *[!0-9]*) echo "softslice: SLURM_JOB_ID is '$SLURM_JOB_ID'" >&2; exit 1 ;; esac
[ -d "$root" ] || mkdir -m 755 "$root"
# A job that is requeued comes back.
mkdir -m 700 "$root/$SLURM_JOB_ID" 2>/dev/null || { [ -d "$root/$SLURM_JOB_ID" ] && [ ! -L "$root/$SLURM_JOB_ID" ]; }
chown "$SLURM_JOB_UID" "$root/$SLURM_JOB_ID"
