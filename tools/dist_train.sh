#!/usr/bin/env bash
# Train with one process for each GPU of this machine: tools/dist_train.sh CONFIG GPUS [ARGUMENTS OF tools/train.py ...]
# Several machines: the same line on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT set; see tools/torchrun.sh.
set -euo pipefail
if [ $# -lt 2 ]; then
    printf 'usage: [NNODES=1 NODE_RANK=0 MASTER_ADDR=HOST PORT=29500 MAX_RESTARTS=0] %s CONFIG GPUS [ARGUMENTS ...]\n' "$0" >&2
    exit 2
fi
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec bash "$tools/torchrun.sh" "$2" "$tools/train.py" "$1" --launcher pytorch "${@:3}"
