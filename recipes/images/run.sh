#!/usr/bin/env bash
# Image classification under degradation. From the repository's root:
#
#   bash recipes/images/run.sh [--dataset digits|cifar10|cifar100|imagenet32] [--stage N] [--stop-stage M]
#                              [--size tiny] [--redo true] [--key value ...]
#
# --help lists the stages and options. --data-dir DIR (or CDASR_IMAGES) is where the data set is.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
dataset=digits size='' rest=()
while [ $# -gt 0 ]; do
  case $1 in
    --dataset=* | --size=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --dataset | --size)
      [ $# -ge 2 ] || { echo "run.sh: $1 needs a value" >&2; exit 2; }
      [ "$1" = --size ] && size=$2 || dataset=$2
      shift 2 ;;
    *) rest+=("$1"); shift ;;
  esac
done
[ "$dataset" = digits ] && dataset=default
exec "$python" -m cdasr.recipe run --recipe "$here" --size "$dataset${size:+,$size}" ${rest[@]+"${rest[@]}"}
