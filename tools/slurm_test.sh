#!/usr/bin/env bash
# Evaluate under Slurm: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [ARGUMENTS OF tools/test.py ...]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS say on what; see tools/srun.sh.
set -euo pipefail
if [ $# -lt 4 ]; then
    printf 'usage: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS=...] %s PARTITION JOB_NAME CONFIG CHECKPOINT [ARGUMENTS ...]\n' "$0" >&2
    exit 2
fi
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec bash "$tools/srun.sh" "$1" "$2" "$tools/test.py" "$3" "$4" --launcher slurm "${@:5}"
