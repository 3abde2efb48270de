#!/usr/bin/env bash
# Speed of training on a GPU: tokens per second and MFU of tiny, baby and gpt3_small (block 1024), eager and compiled, and
# nanoGPT beside them if the path of a checkout is given. Prints a table, writes gpu.json; under 9 minutes.
#
#     benchmarks/gpu.sh [PATH_OF_NANOGPT] [OUTPUT.json]
#
# PYTHON names the interpreter (default: .venv/bin/python if it is there, else python3).
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
nanogpt=${1:-}
output=${2:-gpu.json}

"$PYTHON" - <<'CHECK' || exit 1
import sys

import torch

if not torch.cuda.is_available():
    sys.exit("error: torch sees no CUDA device here; benchmarks/train_speed.py measures a CPU.")
print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
CHECK

PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" timeout 540 "$PYTHON" benchmarks/train_speed.py --shape tiny mid gpt3_small --compile off on \
    ${nanogpt:+--nanogpt "$nanogpt"} --json "$output"
echo "written: $output"
