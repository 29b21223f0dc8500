#pragma once

#include <atomic>

namespace fovea::testing_support {

/// Makes `operator new` of this program throw std::bad_alloc: the allocations from number `first`
/// on (1 is the next), `count` of them, on every thread that is not exempt. Link failing_new.cpp.
/// One at a time.
class FailingNew {
 public:
  FailingNew(int first, int count = 1);
  ~FailingNew();
  FailingNew(const FailingNew&) = delete;
  FailingNew& operator=(const FailingNew&) = delete;

  /// Allocations that have failed.
  static int num_failed();
};

/// The thread that makes this does not fail while it lives: the test's own.
class ExemptFromFailing {
 public:
  ExemptFromFailing();
  ~ExemptFromFailing();
};

}  // namespace fovea::testing_support
