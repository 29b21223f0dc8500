#include <cstdlib>
#include <exception>
#include <iostream>
#include <malloc.h>
#include <optional>
#include <string>
#include <unistd.h>
#include <vector>

#include "commands.h"
#include "model_path.h"

namespace {

std::optional<std::string> environment_variable(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

}  // namespace

int main(int argc, char** argv) {
#ifdef __GLIBC__
  // Pictures, crops and embeddings are made on one thread and let go on another, in any order. Left
  // to itself, glibc soon takes them from its arenas, which keep what a busy moment once needed: in
  // the soak, 470 MiB after 18 minutes and growing, of which 170 were in use. Blocks of this size
  // get a mapping of their own, which goes back at once.
  mallopt(M_MMAP_THRESHOLD, 64 << 10);
#endif
  try {
    std::ios::sync_with_stdio(false);
    const std::vector<std::string> args(argv + (argc > 0 ? 1 : 0), argv + argc);
    return fovea::cli::run(args, {.in = std::cin,
                                  .out = std::cout,
                                  .err = std::cerr,
                                  .err_is_terminal = ::isatty(STDERR_FILENO) != 0,
                                  .executable = fovea::cli::executable_path(),
                                  .environment = &environment_variable});
  } catch (const std::exception& failure) {
    // Only the standard library throws here, when memory runs out.
    std::cerr << "fovea: " << failure.what() << '\n';
    return fovea::cli::kExitFailed;
  }
}
