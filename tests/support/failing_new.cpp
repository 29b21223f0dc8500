#include "support/failing_new.h"

#include <cstdlib>
#include <limits>
#include <new>

namespace {

std::atomic<int> until_failure{std::numeric_limits<int>::max()};
std::atomic<int> failures_left{0};
std::atomic<int> failures{0};
std::atomic<bool> is_armed{false};
thread_local int exemptions = 0;

void maybe_fail() {
  if (!is_armed.load(std::memory_order_relaxed) || exemptions > 0) return;
  if (until_failure.fetch_sub(1) > 1) return;
  if (failures_left.fetch_sub(1) <= 0) return;
  ++failures;
  throw std::bad_alloc();
}

void* allocate(std::size_t size) {
  maybe_fail();
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void* allocate(std::size_t size, std::align_val_t alignment) {
  maybe_fail();
  const auto align = static_cast<std::size_t>(alignment);
  void* memory = std::aligned_alloc(align, (size + align - 1) / align * align);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

// Replacements for the whole program.
void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void* operator new(std::size_t size, std::align_val_t align) { return allocate(size, align); }
void* operator new[](std::size_t size, std::align_val_t align) { return allocate(size, align); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace fovea::testing_support {

FailingNew::FailingNew(int first, int count) {
  until_failure = first;
  failures_left = count;
  failures = 0;
  is_armed = true;
}

FailingNew::~FailingNew() { is_armed = false; }

int FailingNew::num_failed() { return failures; }

ExemptFromFailing::ExemptFromFailing() { ++exemptions; }
ExemptFromFailing::~ExemptFromFailing() { --exemptions; }

}  // namespace fovea::testing_support
