#!/usr/bin/env bash
#
# Fine-tunes exported networks with MMClassification, MMDetection or
# MMSegmentation, from their slimmed weights and from random ones, in the
# environment that it first completes (tools/environment.sh).
#
#   bash tools/transfer.sh TASK EXPORT_DIR [DN ...]
#   bash tools/transfer.sh --help    for the tasks and all options
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

bash "$root/tools/environment.sh"
export VIRTUAL_ENV=$root/.venv PATH=$root/.venv/bin:$PATH
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec python "$root/tools/transfer.py" "$@"
