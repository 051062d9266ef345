#!/usr/bin/env bash
# Evaluate with one process for each GPU of this machine: tools/dist_test.sh CONFIG CHECKPOINT GPUS [ARGUMENTS OF tools/test.py ...]
# Several machines: the same line on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT set; see tools/torchrun.sh.
set -euo pipefail
if [ $# -lt 3 ]; then
    printf 'usage: [NNODES=1 NODE_RANK=0 MASTER_ADDR=HOST PORT=29500] %s CONFIG CHECKPOINT GPUS [ARGUMENTS ...]\n' "$0" >&2
    exit 2
fi
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec bash "$tools/torchrun.sh" "$3" "$tools/test.py" "$1" "$2" --launcher pytorch "${@:4}"
