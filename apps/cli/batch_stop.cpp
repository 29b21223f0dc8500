#include "batch_stop.h"

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

namespace fovea::cli {
namespace {

// A signal's handler has no other way to reach anything.
std::atomic<int> g_write_end{-1};  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)
static_assert(std::atomic<int>::is_always_lock_free);

void put(char byte) {
  const int old_errno = errno;
  // A full pipe wakes the reader as well as one more byte would.
  [[maybe_unused]] const ssize_t written = ::write(g_write_end.load(), &byte, 1);
  errno = old_errno;
}

void on_signal(int number) { put(static_cast<char>(number)); }

}  // namespace

StopSignal::StopSignal() {
  if (::pipe2(pipe_.data(), O_CLOEXEC | O_NONBLOCK) != 0) pipe_ = {-1, -1};
  g_write_end.store(pipe_[1]);
  struct sigaction ignore = {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGXFSZ, &ignore, &old_file_size_);
  if (pipe_[0] < 0) return;  // signals then do what they always do
  for (std::size_t i = 0; i < kStops.size(); ++i) {
    ::sigaction(kStops[i], nullptr, &old_[i]);
    if (old_[i].sa_handler == SIG_IGN) continue;  // nohup, or a shell's background job
    struct sigaction stop = {};
    stop.sa_handler = &on_signal;
    stop.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
    ::sigaction(kStops[i], &stop, nullptr);
  }
}

StopSignal::~StopSignal() {
  ::sigaction(SIGXFSZ, &old_file_size_, nullptr);
  if (pipe_[0] < 0) return;
  for (std::size_t i = 0; i < kStops.size(); ++i) ::sigaction(kStops[i], &old_[i], nullptr);
  g_write_end.store(-1);
  for (const int fd : pipe_) ::close(fd);
}

int StopSignal::wait(int timeout_ms) {
  struct pollfd readable = {pipe_[0], POLLIN, 0};
  // Without a pipe nobody can wake us: look again after a moment.
  ::poll(&readable, 1, pipe_[0] < 0 ? 100 : timeout_ms);
  char byte = 0;
  while (pipe_[0] >= 0 && ::read(pipe_[0], &byte, 1) == 1) {
    if (byte != 0) signal_ = static_cast<unsigned char>(byte);
  }
  return signal_;
}

void StopSignal::wake() { put(0); }

}  // namespace fovea::cli
