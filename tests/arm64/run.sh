#!/bin/sh
# Builds the CPU backend for AArch64 and runs its conformance tests under qemu-user: once as a
# processor with the bf16 dot product, once as one without. Skips with a message when the tools are
# not installed. Usage: tests/arm64/run.sh [build folder]
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$root/build/arm64}
sysroot=/usr/aarch64-linux-gnu

for tool in aarch64-linux-gnu-g++-12 qemu-aarch64-static cmake ninja; do
  if ! command -v "$tool" >/dev/null; then
    echo "arm64: skipped, $tool is not installed"
    exit 0
  fi
done
if [ ! -d /usr/src/googletest ]; then
  echo "arm64: skipped, the sources of googletest are not installed"
  exit 0
fi

# The kernels ask for -O3 themselves; for what is around them, -O1 is compiled in less time than it would save.
cmake -S "$root/tests/arm64" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE="-O1 -DNDEBUG" -DCMAKE_UNITY_BUILD=ON \
  -DCMAKE_TOOLCHAIN_FILE="$root/cmake/arm64_toolchain.cmake" >/dev/null
cmake --build "$build" --target conformance_tests
tests=$build/conformance/conformance_tests

run() {  # PROCESSOR FILTER
  qemu-aarch64-static -cpu "$1" -L "$sysroot" "$tests" --gtest_brief=1 --gtest_filter="$2"
}

if qemu-aarch64-static -cpu cortex-a76 -L "$sysroot" "$tests" --gtest_list_tests |
  grep -q neon_bf16; then
  echo "arm64: the bf16 kernels were chosen where they cannot run"
  exit 1
fi
# The sampler is portable code: its statistics are not repeated on every instruction set here. Nor are the generic kernels, which every
# processor compiles from the same lines, but for products.
echo "arm64: a processor with the bf16 dot product, and one without it"
run max '*neon_bf16_threads_3*:Philox*:Registry*:PagedAttention.MixedBatch/emulator-*Draws*:*Top*:*MinP*:*AllowedList*:ManyWords*:*WholeCrop*' &
with_bf16=$!
run cortex-a76 '*neon_threads_1*:Linear.*generic_threads_3-*Sampler*:ManyWords*:Linear.RowsAreBitEqual*/generic*:*EveryPage*:*WholeCrop*'
wait $with_bf16
