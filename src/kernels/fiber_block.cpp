#include "fiber_block.h"

#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define FOVEA_UNSEEN __attribute__((no_sanitize("thread"), noinline))
#else
#define FOVEA_UNSEEN
#endif

// fovea_switch_fiber(save, load): keeps what a call must preserve on the current stack, stores the
// stack pointer in *save and goes on where `load` was stored. A new fiber's stack holds the frame
// that fovea_enter_fiber expects: a function and its argument in two preserved registers.
extern "C" {
void fovea_switch_fiber(void** save, void* load);
void fovea_enter_fiber();
}

#if defined(__x86_64__)
asm(R"(
.text
.globl fovea_switch_fiber
.type fovea_switch_fiber, @function
fovea_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fovea_switch_fiber, .-fovea_switch_fiber
.globl fovea_enter_fiber
.type fovea_enter_fiber, @function
fovea_enter_fiber:
  movq %r12, %rdi
  callq *%r13
  ud2
.size fovea_enter_fiber, .-fovea_enter_fiber
.section .note.GNU-stack,"",@progbits
.text
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl fovea_switch_fiber
.type fovea_switch_fiber, %function
fovea_switch_fiber:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size fovea_switch_fiber, .-fovea_switch_fiber
.globl fovea_enter_fiber
.type fovea_enter_fiber, %function
fovea_enter_fiber:
  mov x0, x19
  blr x20
  brk #1
.size fovea_enter_fiber, .-fovea_enter_fiber
.section .note.GNU-stack,"",%progbits
.text
)");
#else
#error "FiberBlock knows how to change stacks on x86-64 and AArch64 only"
#endif

namespace fovea {
namespace kernels {
namespace {

constexpr std::size_t kStackBytes = std::size_t{128} << 10;

struct Barrier {
  std::uint32_t arrived = 0;
  std::uint32_t generation = 0;
  // What orders its threads for ThreadSanitizer, by generation: who is through may arrive at the
  // next barrier while others have yet to leave this one.
  char order[2] = {};
};

}  // namespace

struct FiberBlock::State {
  struct Fiber {
    State* state;
    std::uint32_t index;
    void* stack_pointer;
    void* tsan;
  };

  Fiber fibers[kMaxThreads];
  std::uint32_t next[kMaxThreads];  // ring of the fibers that have not ended
  std::uint32_t previous[kMaxThreads];
  std::uint32_t num_made = 0;
  std::uint32_t num_threads = 0;
  std::uint32_t num_alive = 0;
  std::uint32_t num_idle = 0;  // changes since something last went on
  Barrier block;
  Barrier warps[kMaxThreads / kWarp];
  std::uint64_t slots[2][kMaxThreads];
  std::uint8_t parity[kMaxThreads];
  Body body = nullptr;
  const void* context = nullptr;
  void* main_stack_pointer = nullptr;
  void* main_tsan = nullptr;
  char started = 0;  // orders the caller before the threads, for ThreadSanitizer
  char ended = 0;    // and the threads before the caller
  std::byte* stacks = nullptr;

  void make_fibers(std::uint32_t count);
  void change(void** save, const Fiber& to);
  void yield(std::uint32_t index);
  void finish(std::uint32_t index);
  void wait(Barrier& barrier, std::uint32_t expected, std::uint32_t index);
  static void run_fiber(Fiber* fiber);
};

FOVEA_UNSEEN void FiberBlock::State::change(void** save, const Fiber& to) {
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(to.tsan, __tsan_switch_to_fiber_no_sync);
#endif
  fovea_switch_fiber(save, to.stack_pointer);
}

FOVEA_UNSEEN void FiberBlock::State::run_fiber(Fiber* fiber) {
  for (;;) {
    State* state = fiber->state;
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(&state->started);
#endif
    state->body(state->context, fiber->index);
    state->finish(fiber->index);
  }
}

FOVEA_UNSEEN void FiberBlock::State::make_fibers(std::uint32_t count) {
  for (; num_made < count; ++num_made) {
    Fiber& fiber = fibers[num_made];
    fiber.state = this;
    fiber.index = num_made;
    auto** top = reinterpret_cast<void**>(stacks + (num_made + 1) * kStackBytes);
    void* argument = &fiber;
    void* function = reinterpret_cast<void*>(&run_fiber);
    void* entry = reinterpret_cast<void*>(&fovea_enter_fiber);
#if defined(__x86_64__)
    top -= 9;  // r15 r14 r13 r12 rbx rbp, where to return to; the stack is aligned behind them
    top[2] = function;
    top[3] = argument;
    top[6] = entry;
#else
    top -= 20;
    top[0] = argument;
    top[1] = function;
    top[11] = entry;
#endif
    fiber.stack_pointer = static_cast<void*>(top);
#if defined(__SANITIZE_THREAD__)
    fiber.tsan = __tsan_create_fiber(0);
#endif
  }
}

FOVEA_UNSEEN void FiberBlock::State::yield(std::uint32_t index) {
  if (++num_idle > 2 * num_alive + 2) {
    std::fprintf(stderr,
                 "thread %u of %u waits at a barrier that others of its block never reach\n", index,
                 num_threads);
    std::abort();
  }
  const std::uint32_t to = next[index];
  if (to != index) change(&fibers[index].stack_pointer, fibers[to]);
}

FOVEA_UNSEEN void FiberBlock::State::finish(std::uint32_t index) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(&ended);
#endif
  num_idle = 0;
  const std::uint32_t to = next[index];
  next[previous[index]] = to;
  previous[to] = previous[index];
  if (--num_alive > 0) {
    change(&fibers[index].stack_pointer, fibers[to]);
    return;
  }
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(main_tsan, __tsan_switch_to_fiber_no_sync);
#endif
  fovea_switch_fiber(&fibers[index].stack_pointer, main_stack_pointer);
}

FOVEA_UNSEEN void FiberBlock::State::wait(Barrier& barrier, std::uint32_t expected,
                                          std::uint32_t index) {
  const std::uint32_t generation = barrier.generation;
#if defined(__SANITIZE_THREAD__)
  __tsan_release(&barrier.order[generation % 2]);
#endif
  if (++barrier.arrived == expected) {
    barrier.arrived = 0;
    ++barrier.generation;
    num_idle = 0;
  } else {
    while (barrier.generation == generation) yield(index);
  }
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(&barrier.order[generation % 2]);
#endif
}

FiberBlock::FiberBlock() : state_(std::make_unique<State>()) {
  void* memory = mmap(nullptr, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::fprintf(stderr, "no address space for the stacks of %u fibers\n", kMaxThreads);
    std::abort();
  }
  state_->stacks = static_cast<std::byte*>(memory);
}

FiberBlock::~FiberBlock() {
#if defined(__SANITIZE_THREAD__)
  for (std::uint32_t i = 0; i < state_->num_made; ++i) __tsan_destroy_fiber(state_->fibers[i].tsan);
#endif
  munmap(state_->stacks, kMaxThreads * kStackBytes);
}

FOVEA_UNSEEN void FiberBlock::run(std::uint32_t num_threads, Body body, const void* context) {
  State& s = *state_;
  if (num_threads == 0 || num_threads % kWarp != 0 || num_threads > kMaxThreads) {
    std::fprintf(stderr, "a block of %u threads\n", num_threads);
    std::abort();
  }
  s.make_fibers(num_threads);
  for (std::uint32_t i = 0; i < num_threads; ++i) {
    s.next[i] = i + 1 < num_threads ? i + 1 : 0;
    s.previous[i] = i > 0 ? i - 1 : num_threads - 1;
    s.parity[i] = 0;
  }
  s.num_threads = num_threads;
  s.num_alive = num_threads;
  s.num_idle = 0;
  s.body = body;
  s.context = context;
#if defined(__SANITIZE_THREAD__)
  s.main_tsan = __tsan_get_current_fiber();
  __tsan_release(&s.started);
#endif
  s.change(&s.main_stack_pointer, s.fibers[0]);
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(&s.ended);
#endif
}

FOVEA_UNSEEN void FiberBlock::block_barrier(std::uint32_t index) {
  state_->wait(state_->block, state_->num_threads, index);
}

FOVEA_UNSEEN void FiberBlock::warp_barrier(std::uint32_t index) {
  state_->wait(state_->warps[index / kWarp], kWarp, index);
}

FOVEA_UNSEEN const std::uint64_t* FiberBlock::exchange(std::uint32_t index, std::uint64_t value) {
  State& s = *state_;
  std::uint64_t* slots = s.slots[s.parity[index]];
  s.parity[index] ^= 1;
  slots[index] = value;
  warp_barrier(index);
  return slots + index / kWarp * kWarp;
}

}  // namespace kernels
}  // namespace fovea
