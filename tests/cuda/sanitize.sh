#!/bin/sh
# The conformance tests of an NVIDIA device under compute-sanitizer, memcheck and racecheck, several processes of each at
# once. Usage: tests/cuda/sanitize.sh CONFORMANCE_TESTS
#
# Left out: what draws thousands of words or walks every chunking takes minutes there and touches nothing new; the test
# that asks for more memory than there is, because that call fails as it should. Hazards within the library's own kernels
# (nvjet) are counted, and are no failure: they hand tiles from one warp to another through hardware barriers that
# racecheck does not follow. (Excluding kernels by name makes racecheck itself fail.)
set -eu
program=$1
shards=6
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

few='*/cuda-*Draws*:*TopP*:*TopK*:*MinP*:*AllowedList*:*ManyEqualWords*:*Chunked*:*AtAnyBatch*:*WholeCrop*:*TooMuchMemory*'
# These take minutes each: side by side, in processes of their own. The last is for memcheck alone: racecheck looks inside
# kernels, all of which other tests run as well, and it takes more than five minutes there.
slow="SixteenBit.RoutedExperts SixteenBit.PagedAttentionOfLongPrompts SixteenBit.LinearForEveryNumberOfRows \
  Fused.DecodedLayersDoNotOvertakeOneAnother"
others=$few
for test in $slow; do others="$others:$test/*"; done

# watch TOOL NAME FILTER: the tests of the filter, and how they ended, in files of that name.
watch() {
  errors=""
  [ "$1" = racecheck ] || errors="--error-exitcode 9"
  status=0
  # shellcheck disable=SC2086
  compute-sanitizer --tool "$1" $errors "$program" --gtest_filter="$3" >"$logs/$1-$2" 2>&1 || status=$?
  echo "$status" >"$logs/$1-$2.status"
}

for tool in memcheck racecheck; do
  shard=0
  while [ "$shard" -lt "$shards" ]; do
    GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$shard watch "$tool" "$shard" "$others" &
    shard=$((shard + 1))
  done
  for test in $slow; do
    [ "$tool" = racecheck ] && [ "$test" = Fused.DecodedLayersDoNotOvertakeOneAnother ] && continue
    watch "$tool" "$test" "$test/cuda" &
  done
done
wait

failed=0
for status in "$logs"/*.status; do
  log=${status%.status}
  # The two accesses of a hazard stand on lines of their own.
  library=$(grep -c ' access at nvjet_' "$log" || true)
  ours=$(grep ' access at ' "$log" | grep -vc ' access at nvjet_' || true)
  echo "cuda: $(basename "$log"): exit $(cat "$status"), $(grep -c ' OK \]' "$log") tests, $(grep 'SUMMARY' "$log" | cut -c11-)" \
    "$([ "$library" = 0 ] || echo "(accesses of the library: $library)")"
  if [ "$(cat "$status")" != 0 ] || [ "$ours" != 0 ]; then
    failed=1
    grep -v ' OK \]\|RUN  \|^$' "$log" | head -n 60
  fi
done
exit "$failed"
