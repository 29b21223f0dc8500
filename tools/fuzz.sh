#!/usr/bin/env bash
# tools/fuzz.sh SECONDS [NAME ...]: runs each fuzzer of build/fuzz (or FUZZ_BUILD) for so long, as many at once as there
# are processors (or JOBS), on its seeds in tests/fuzz/corpus/NAME and what earlier runs found in build/fuzz/corpus/NAME.
# An input that breaks something is kept in build/fuzz/findings.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:?usage: tools/fuzz.sh SECONDS [NAME ...]}
shift
export FUZZ_BUILD=${FUZZ_BUILD:-build/fuzz} FUZZ_FINDINGS=build/fuzz/findings FUZZ_SECONDS=$seconds
mkdir -p "$FUZZ_FINDINGS"

if [ $# = 0 ]; then
  for binary in "$FUZZ_BUILD"/tests/fuzz/*_fuzz; do
    [ -x "$binary" ] || { echo "no fuzzers are built: ./dev fuzz builds them" >&2; exit 1; }
    set -- "$@" "$(basename "$binary" _fuzz)"
  done
fi

fuzz() {  # NAME
  local name=$1 grown=build/fuzz/corpus/$1 log=build/fuzz/$1.log
  mkdir -p "$grown"
  local inputs=("$grown")
  [ ! -d "tests/fuzz/corpus/$name" ] || inputs+=("tests/fuzz/corpus/$name")
  # A parser of pictures may need 300 MB for one that is within the limits, with the sanitizers' share on top.
  if "$FUZZ_BUILD/tests/fuzz/${name}_fuzz" "${inputs[@]}" -max_total_time="$FUZZ_SECONDS" -timeout=25 \
    -rss_limit_mb=4096 -artifact_prefix="$FUZZ_FINDINGS/$name-" >"$log" 2>&1; then
    echo "$name: ok, $(sed -nE 's/^Done ([0-9]+) runs in ([0-9]+) second.*/\1 runs in \2 s/p' "$log" | tail -n 1)"
  else
    tail -n 30 "$log"
    echo "$name: FAILED, the input is in $FUZZ_FINDINGS, the log is $log"
    return 1
  fi
}
export -f fuzz
printf '%s\n' "$@" | xargs -P "${JOBS:-$(nproc)}" -I{} bash -c 'fuzz {}'
