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
for tool in memcheck racecheck; do
  errors=""
  [ "$tool" = racecheck ] || errors="--error-exitcode 9"
  shard=0
  while [ "$shard" -lt "$shards" ]; do
    (
      status=0
      # shellcheck disable=SC2086
      GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$shard compute-sanitizer --tool "$tool" $errors "$program" \
        --gtest_filter="$few" >"$logs/$tool$shard" 2>&1 || status=$?
      echo "$status" >"$logs/$tool$shard.status"
    ) &
    shard=$((shard + 1))
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
