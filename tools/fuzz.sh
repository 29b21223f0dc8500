#!/usr/bin/env bash
# tools/fuzz.sh SECONDS [NAME ...]: runs each fuzzer of build/fuzz for so long, one after the other, on its seeds in
# tests/fuzz/corpus/NAME and what earlier runs found in build/fuzz/corpus/NAME. An input that breaks something is kept
# in build/fuzz/findings.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:?usage: tools/fuzz.sh SECONDS [NAME ...]}
shift
readonly findings=build/fuzz/findings
mkdir -p "$findings"

if [ $# = 0 ]; then
  for binary in build/fuzz/tests/fuzz/*_fuzz; do
    [ -x "$binary" ] || { echo "no fuzzers are built: cmake --preset fuzz && ninja -C build/fuzz" >&2; exit 1; }
    set -- "$@" "$(basename "$binary" _fuzz)"
  done
fi

status=0
for name in "$@"; do
  grown=build/fuzz/corpus/$name log=build/fuzz/$name.log
  mkdir -p "$grown"
  inputs=("$grown")
  [ ! -d "tests/fuzz/corpus/$name" ] || inputs+=("tests/fuzz/corpus/$name")
  # A parser of pictures may need 300 MB for one that is within the limits, with the sanitizers' share on top.
  if "build/fuzz/tests/fuzz/${name}_fuzz" "${inputs[@]}" -max_total_time="$seconds" -timeout=25 \
    -rss_limit_mb=4096 -artifact_prefix="$findings/$name-" >"$log" 2>&1; then
    echo "$name: ok, $(sed -nE 's/^Done ([0-9]+) runs in ([0-9]+) second.*/\1 runs in \2 s/p' "$log" | tail -n 1)"
  else
    tail -n 30 "$log"
    echo "$name: FAILED, the input is in $findings, the log is $log"
    status=1
  fi
done
exit "$status"
