#!/usr/bin/env bash
# bench/run.sh [--model DIR] [PART ...]: builds and runs the benchmarks. Parts: ops pictures tokenizer engine program; all of
# them when none is named. The part `program` times the program on random checkpoints with the shapes of Moondream 2 and
# 0.5B (5.2 GB, written once to build/bench/checkpoints), or on the model given. It's only worth something on a quiet
# machine; figures to be kept go to bench/results, with the machine's name.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

model=""
parts=()
while [ $# -gt 0 ]; do
  case $1 in
    --model) model=${2:?--model needs a folder}; shift 2 ;;
    --help | -h) sed -n '2,/^set/p' "$0" | sed '$d; s/^# //'; exit 0 ;;
    ops | pictures | tokenizer | engine | program) parts+=("$1"); shift ;;
    *) echo "bench: unknown argument '$1'; see bench/run.sh --help" >&2; exit 2 ;;
  esac
done
[ ${#parts[@]} -gt 0 ] || parts=(ops pictures tokenizer engine program)

log=build/logs/build-bench.log
mkdir -p build/logs
if ! { cmake --preset bench && ninja -C build/bench; } >"$log" 2>&1; then
  tail -n 25 "$log" >&2
  exit 1
fi

machine() {
  sed -nE 's/^model name\s*: //p' /proc/cpuinfo | head -n 1
  echo "$(nproc) usable processors, load $(cut -d' ' -f1 /proc/loadavg), $(git rev-parse --short HEAD 2>/dev/null || echo 'no commit')"
}

# run_binary NAME: a benchmark program of this build, if there is one.
run_binary() {
  local binary=build/bench/bench/$1
  echo
  echo "== $1"
  if [ -x "$binary" ]; then "$binary"; else echo "not built here"; fi
}

# Beside Pillow, which bench/resize_beside_pillow.py also draws the picture with.
pictures() {
  echo
  echo "== pictures"
  if [ ! -x build/bench/bench/resize_bench ]; then
    echo "not built here"
  elif ! python3 -c 'import PIL' 2>/dev/null; then
    echo "skipped: Pillow is not installed (apt install python3-pil, or pip install pillow)"
  else
    bench/resize_beside_pillow.py --bench build/bench/bench/resize_bench
  fi
}

checkpoint() {  # NAME: writes it unless a whole one is there
  local folder=build/bench/checkpoints/$1
  if [ ! -e "$folder/done" ]; then
    build/bench/bench/make_checkpoint "$folder" --model "$1" && touch "$folder/done"
  fi
  echo "$folder"
}

program() {
  echo
  echo "== the program"
  local models
  if [ -n "$model" ]; then
    models=("$(basename "$model")=$model")
  else
    models=("Moondream 2=$(checkpoint 2b)" "0.5B=$(checkpoint 0.5b)")
  fi
  bench/program_bench.py --fovea build/bench/fovea --picture assets/harbour.png "${models[@]}"
}

machine
for part in "${parts[@]}"; do
  case $part in
    ops) run_binary op_bench ;;
    pictures) pictures ;;
    tokenizer) run_binary tokenizer_bench ;;
    engine)
      run_binary engine_bench
      build/bench/fovea bench serve --requests 100 --pictures 4 --tokens 33 --batch 1,4,16
      ;;
    program) program ;;
  esac
done
