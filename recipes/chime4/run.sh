#!/usr/bin/env bash
# Real and simulated noisy speech, one channel (CHiME-4). From the repository's root:
#
#   bash recipes/chime4/run.sh [--stage N] [--stop-stage M] [--asr NAME_OR_DIR] [--redo true] [--key value ...]
#
# --help lists the stages and options.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
exec "$python" -m cdasr.recipe run --recipe "$here" "$@"
