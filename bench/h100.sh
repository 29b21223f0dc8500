#!/usr/bin/env bash
# bench/h100.sh --bin DIR [--work DIR] [--log FILE] PART ...: verifies and measures one NVIDIA device; its log is what
# bench/results/h100/*.md is written from. DIR holds the programs of a build with -DFOVEA_CUDA=ON -DFOVEA_BENCH=ON
# (build/cuda), or copies of them; checkpoints are written to the work folder (25 GB, /tmp/fovea-h100) when they are
# first needed. Parts, and the minutes that each takes:
#
#   conformance 2   every operation against f64
#   golden 1        golden stages and answers, and the same answer alone and among 63 others
#   sanitize 5      compute-sanitizer memcheck and racecheck over the conformance tests
#   agreement 2     full-size models on the device beside the processor
#   start 2         process start to first answer, page cache empty and full
#   table 7         many questions: both models, bf16 and fp8, 3 and 33 tokens, 1 to 64 at once
#   load 2          the same at 25, 50, 75 and 90 % of what was reached, for Moondream 2
#   gpu 2           operations at the models' shapes (gpu_bench)
#
# Three runs of less than ten minutes: "conformance golden agreement start", "sanitize", and "table load".
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bin="" work=/tmp/fovea-h100 log=""
parts=()
while [ $# -gt 0 ]; do
  case $1 in
    --bin) bin=${2:?--bin needs a folder}; shift 2 ;;
    --work) work=${2:?--work needs a folder}; shift 2 ;;
    --log) log=${2:?--log needs a file}; shift 2 ;;
    conformance | golden | sanitize | agreement | start | table | load | gpu) parts+=("$1"); shift ;;
    *) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 2 ;;
  esac
done
if [ -z "$bin" ] || [ ${#parts[@]} -eq 0 ]; then
  echo "h100: --bin and at least one part are wanted" >&2
  exit 2
fi
[ -z "$log" ] || exec > >(tee "$log") 2>&1
mkdir -p "$work"
failed=()

# binary NAME: a program of the build, or a copy of it.
binary() { find "$bin" -name "$1" -type f -perm -u+x -print -quit; }

# check NAME COMMAND ...: runs it, says how long it took, and remembers whether it failed.
check() {
  local name=$1 began=$SECONDS status=0
  shift
  "$@" || status=$?
  echo "-- $name: exit $status after $((SECONDS - began)) s"
  [ "$status" -eq 0 ] || failed+=("$name")
}

checkpoint() {  # NAME OPTION ...: writes it unless a whole one is there
  local folder=$work/$1
  shift
  if [ ! -e "$folder/done" ]; then
    "$(binary make_checkpoint)" "$folder" "$@" >&2 && touch "$folder/done"
  fi
  echo "$folder"
}
moondream2() { checkpoint md2 --model 2b; }
moondream3() { checkpoint md3 --model 3; }
# All experts are chosen everywhere: no choice that rounding could turn.
all_experts() { checkpoint md3-all-experts --model 3 --experts 8; }

conformance() { check conformance "$(binary conformance_tests)" --gtest_brief=1 --gtest_filter='*/cuda'; }

golden() {
  # The tests look for them where they were built.
  tar -C tests/golden/data -xJf tests/golden/data/checkpoints.tar.xz
  FOVEA_GOLDEN_DEVICE=cuda check golden "$(binary golden_tests)" --gtest_brief=1
}

sanitize() { check sanitize tests/cuda/sanitize.sh "$(binary conformance_tests)"; }

agreement() {
  local compare picture=assets/harbour.png
  compare=$(binary device_agreement)
  check "agreement, Moondream 2" "$compare" "$(moondream2)" --picture $picture \
    --reference cpu:f32 cpu:bf16 cuda:bf16 cuda:fp8
  check "agreement, Moondream 3, all experts" "$compare" "$(all_experts)" --picture $picture \
    --reference cpu:f32 cuda:bf16 cuda:fp8
  check "agreement, Moondream 3" "$compare" "$(moondream3)" --picture $picture \
    --reference cpu/avx512:bf16 cuda:bf16 cuda:fp8
}

start() {
  local dropping=""
  [ ! -w /proc/sys/vm/drop_caches ] || dropping=--drop-caches
  for dtype in bf16 fp8; do
    echo "$dtype"
    check "start, $dtype" bench/program_bench.py --fovea "$(binary fovea)" --picture assets/harbour.png --device cuda \
      --dtype $dtype --max-tokens 33 $dropping "Moondream 2=$(moondream2)" "Moondream 3=$(moondream3)"
  done
}

# serve MODEL DTYPE TOKENS BATCH REQUESTS OPTION ...: lines of the table of many questions
serve() {
  local model=$1 dtype=$2 tokens=$3 batch=$4 requests=$5
  shift 5
  "$(binary fovea)" bench serve --device cuda --model "$model" --dtype "$dtype" --tokens "$tokens" --batch "$batch" \
    --requests "$requests" --repeat 39.6 --repeats-at-once "$@"
}

# For some five to ten seconds each: what is asked for grows with what is reached.
table() {
  local model dtype
  for model in "$(moondream2)" "$(moondream3)"; do
    for dtype in bf16 fp8; do
      echo "$(basename "$model"), $dtype"
      serve "$model" $dtype 3 4 100 >/dev/null  # the library's algorithms are timed
      check "table, 3 tokens" serve "$model" $dtype 3 1,4 300
      check "table, 3 tokens" serve "$model" $dtype 3 16,64 600
      check "table, 33 tokens" serve "$model" $dtype 33 1 100
      check "table, 33 tokens" serve "$model" $dtype 33 4 200
      check "table, 33 tokens" serve "$model" $dtype 33 16,64 500
    done
  done
}

# Nothing is given up: the deadline is a minute.
load() {
  local tokens
  for tokens in 3 33; do
    check "load, $tokens tokens" serve "$(moondream2)" bf16 $tokens 64 700 --overload 0.25,0.5,0.75,0.9 --deadline 60000
  done
}

gpu() { check gpu "$(binary gpu_bench)" cuda; }

nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,clocks.max.mem --format=csv,noheader
sed -nE 's/^model name\s*: //p' /proc/cpuinfo | head -n 1
echo "$(nproc) usable processors, $(sed -nE 's/^MemTotal:\s*//p' /proc/meminfo), commit ${FOVEA_COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}"
for part in "${parts[@]}"; do
  echo
  echo "== $part"
  check "part $part" "$part"
done
if [ ${#failed[@]} -gt 0 ]; then
  printf 'failed: %s\n' "${failed[@]}"
  exit 1
fi
