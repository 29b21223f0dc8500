#!/bin/sh
# The tests that need an NVIDIA device, from a build with FOVEA_CUDA=ON (preset `cuda`): conformance
# of every operation, golden stages and answers, and conformance once more under compute-sanitizer,
# where it is installed. Usage: tests/cuda/run.sh [build folder]
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$root/build/cuda}
conformance=$build/tests/conformance/conformance_tests
golden=$build/tests/golden/golden_tests
failed=0

echo "cuda: conformance"
"$conformance" --gtest_brief=1 --gtest_filter='*/cuda' || failed=1
echo "cuda: golden stages and answers"
FOVEA_GOLDEN_DEVICE=cuda "$golden" --gtest_brief=1 --gtest_filter='*GoldenStages*:*GoldenAnswer*' ||
  failed=1
if command -v compute-sanitizer >/dev/null; then
  # What draws thousands of words or walks every chunking takes minutes there and touches nothing new.
  few='*/cuda-*Draws*:*TopP*:*TopK*:*MinP*:*AllowedList*:*Chunked*:*AtAnyBatch*:*WholeCrop*'
  for tool in memcheck racecheck; do
    echo "cuda: conformance under $tool"
    compute-sanitizer --tool "$tool" --error-exitcode 9 "$conformance" --gtest_brief=1 \
      --gtest_filter="$few" || failed=1
  done
fi
exit "$failed"
