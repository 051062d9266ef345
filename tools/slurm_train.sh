#!/usr/bin/env bash
# Train under Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [ARGUMENTS OF tools/train.py ...]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK, SIGNAL and SRUN_ARGS say on what; see tools/srun.sh. With --resume among the
# arguments a job that Slurm queues again goes on where it was.
set -euo pipefail
if [ $# -lt 3 ]; then
    printf 'usage: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS=...] %s PARTITION JOB_NAME CONFIG [ARGUMENTS ...]\n' "$0" >&2
    exit 2
fi
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec bash "$tools/srun.sh" "$1" "$2" "$tools/train.py" "$3" --launcher slurm "${@:4}"
