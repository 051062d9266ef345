#!/usr/bin/env bash
# Starts a tool under Slurm; what tools/slurm_train.sh and tools/slurm_test.sh have in common.
#   tools/srun.sh PARTITION JOB_NAME TOOL [ARGUMENTS ...]
# From the environment:
#   GPUS           processes, one for each GPU                                     (8)
#   GPUS_PER_NODE  as many of them on a machine                                    (8, or GPUS where that is less)
#   CPUS_PER_TASK  CPU cores for each process and its data workers                 (5)
#   SIGNAL         what the processes are sent before the time is up, and how many seconds before   (USR1@120)
#   SRUN_ARGS      more arguments of srun, separated by blanks                     (none)
#   PYTHON         interpreter                                                     (python)
set -euo pipefail
if [ $# -lt 3 ]; then
    printf 'usage: %s PARTITION JOB_NAME TOOL [ARGUMENTS ...]\n' "$0" >&2
    exit 2
fi
if ! command -v srun >/dev/null; then
    printf 'error: there is no srun on this machine; under Slurm run this where jobs are submitted, else tools/dist_train.sh\n' >&2
    exit 2
fi
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
read -r -a more <<<"${SRUN_ARGS:-}"
# one process that fails ends the others, which would wait for it; a signal early enough lets the training save itself
exec srun --partition "$1" --job-name "$2" --gres "gpu:$GPUS_PER_NODE" --ntasks "$GPUS" \
    --ntasks-per-node "$GPUS_PER_NODE" --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
    --signal "${SIGNAL:-USR1@120}" ${more[@]+"${more[@]}"} "${PYTHON:-python}" -u "${@:3}"
