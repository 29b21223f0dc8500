#include <exception>
#include <iostream>
#include <malloc.h>
#include <string>
#include <unistd.h>
#include <vector>

#include "commands.h"
#include "model_path.h"

int main(int argc, char** argv) {
#ifdef __GLIBC__
  // Pictures are decoded on one thread and let go on another, in any order. Left to itself, glibc
  // soon takes them from its arenas, which then fill with holes: in the soak, 470 MiB after 18
  // minutes and growing. Blocks of this size get a mapping of their own, and go back at once.
  mallopt(M_MMAP_THRESHOLD, 256 << 10);
#endif
  try {
    std::ios::sync_with_stdio(false);
    const std::vector<std::string> args(argv + (argc > 0 ? 1 : 0), argv + argc);
    return fovea::cli::run(args, {.in = std::cin,
                                  .out = std::cout,
                                  .err = std::cerr,
                                  .err_is_terminal = ::isatty(STDERR_FILENO) != 0,
                                  .executable = fovea::cli::executable_path()});
  } catch (const std::exception& failure) {
    // Only the standard library throws here, when memory runs out.
    std::cerr << "fovea: " << failure.what() << '\n';
    return fovea::cli::kExitFailed;
  }
}
