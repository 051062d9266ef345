#!/usr/bin/env bash
# Starts a tool in several processes; what tools/dist_train.sh and tools/dist_test.sh have in common.
#   tools/torchrun.sh PROCESSES TOOL [ARGUMENTS ...]
# From the environment:
#   NNODES        machines                                                        (1)
#   NODE_RANK     which of them this is, from 0                                   (0)
#   MASTER_ADDR   name or address of the first                                    (127.0.0.1)
#   PORT          where the processes meet on it                                  (29500; one machine: any free one)
#   MAX_RESTARTS  how often all are started again when one has died; the training needs --resume to go on (0)
#   PYTHON        interpreter                                                     (python)
set -euo pipefail
if [ $# -lt 2 ]; then
    printf 'usage: %s PROCESSES TOOL [ARGUMENTS ...]\n' "$0" >&2
    exit 2
fi
case $1 in
'' | *[!0-9]* | 0)
    printf "error: the number of processes is a whole number from 1, not '%s'\n" "$1" >&2
    exit 2
    ;;
esac
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
MAX_RESTARTS=${MAX_RESTARTS:-0}

if [ "$NNODES" = 1 ] && [ -z "${PORT:-}" ]; then
    meeting=(--standalone)
elif [ "$MAX_RESTARTS" = 0 ]; then
    meeting=(--nnodes "$NNODES" --node-rank "$NODE_RANK" --master-addr "$MASTER_ADDR" --master-port "${PORT:-29500}")
else # the machines have to agree on every new start, which this kind of meeting can
    host=$([ "$NODE_RANK" = 0 ] && printf true || printf false)
    meeting=(--nnodes "$NNODES" --rdzv-backend c10d --rdzv-id "${PORT:-29500}" --rdzv-conf "is_host=$host"
        --rdzv-endpoint "$MASTER_ADDR:${PORT:-29500}")
fi
# Otherwise torchrun hands processes that it starts again the store of those that died, with their addresses in it, and
# now and then they wait for each other for ever (seen with torch 2.13).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec "${PYTHON:-python}" -m torch.distributed.run "${meeting[@]}" --max-restarts "$MAX_RESTARTS" \
    --nproc-per-node "$@"
