#!/usr/bin/env bash
# Connected digits in noise, on the Free Spoken Digit Dataset. From the repository's root:
#
#   bash recipes/digits/run.sh [--stage N] [--stop-stage M] [--size default|tiny] [--redo true] [--key value ...]
#
#   0 download    find FSDD (--data-dir, CDASR_FSDD) or download it
#   1 prepare     clean strings, noise and room lists, fixed noisy test sets
#   2 recogniser  train a wav2vec2 CTC recogniser on clean strings, then freeze it
#   3 signal      train the signal process, tune its steps, write the model package
#   4 logits      fill the bank of logits and train the logits process
#   5 coupled     train both processes together, tune the strategies
#   6 controls    the signal process trained on alone; the recogniser retrained on noisy speech
#   7 decode      the test sets with each system
#   8 ablate      what each part of the coupling is worth
#   9 score       tables, plot and RESULTS.md
#
# Other options: --data-dir DIR --noise-dir DIR --rir-dir DIR --exp-dir DIR, and every key of hparams/*.yaml. A
# finished stage is skipped.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

stage=0 stop_stage=9 size=default redo=false exp_dir='' rest=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}"; continue ;;
    --*) [ $# -ge 2 ] || { echo "run.sh: $1 needs a value" >&2; exit 2; } ;;
    *) echo "run.sh: expected --option value, got '$1'" >&2; exit 2 ;;
  esac
  case $1 in
    --stage) stage=$2 ;;
    --stop-stage | --stop_stage) stop_stage=$2 ;;
    --size) size=$2 ;;
    --redo) redo=$2 ;;
    --exp-dir | --exp_dir) exp_dir=$2; rest+=("$1" "$2") ;;
    *) rest+=("$1" "$2") ;;
  esac
  shift 2
done

changes=$here/hparams/$size.yaml
[ -f "$changes" ] || { echo "run.sh: no hparams for --size '$size' ($changes)" >&2; exit 2; }
hparams=(--hparams "$here/hparams/default.yaml")
[ "$size" = default ] || hparams+=(--hparams "$changes")
exp=${exp_dir:-$(sed -n 's/^exp_dir: *\([^ #]*\).*/\1/p' "$changes")}
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}

run_stage() { # number, title, command...
  local number=$1 title=$2
  shift 2
  [ "$number" -ge "$stage" ] && [ "$number" -le "$stop_stage" ] || return 0
  if [ -f "$exp/done/stage$number" ] && [ "$redo" != true ]; then
    echo "stage $number ($title): done already"
    return 0
  fi
  echo "stage $number ($title)"
  "$@" "${hparams[@]}" ${rest[@]+"${rest[@]}"}
  mkdir -p "$exp/done" && touch "$exp/done/stage$number"
}

run_stage 0 download "$python" "$here/prepare.py" download
run_stage 1 prepare "$python" "$here/prepare.py" prepare
run_stage 2 recogniser "$python" -m cdasr.recipe recogniser
run_stage 3 signal "$python" -m cdasr.recipe signal
run_stage 4 logits "$python" -m cdasr.recipe logits
run_stage 5 coupled "$python" -m cdasr.recipe coupled
run_stage 6 controls "$python" -m cdasr.recipe controls
run_stage 7 decode "$python" -m cdasr.recipe decode
run_stage 8 ablate "$python" -m cdasr.recipe ablate
run_stage 9 score "$python" -m cdasr.recipe score
