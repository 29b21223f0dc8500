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
FOVEA_GOLDEN_DEVICE=cuda "$golden" --gtest_brief=1 || failed=1
if command -v compute-sanitizer >/dev/null; then
  echo "cuda: conformance under compute-sanitizer"
  "$root/tests/cuda/sanitize.sh" "$conformance" || failed=1
fi
exit "$failed"
