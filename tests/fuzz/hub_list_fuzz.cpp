// What a hub says that a repository holds, and an index of shards, from outside: the same bytes are
// read as both. Whatever is accepted has names that stay in their folder.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "hub/file_choice.h"
#include "hub/known_models.h"
#include "hub/repository.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace fovea::hub;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto repository = parse_repository(text); repository.ok()) {
    FOVEA_CHECK(repository->commit.size() == 40, "{}", repository->commit);
    for (const RemoteFile& file : repository->files) {
      FOVEA_CHECK(is_plain_file_name(file.name) && file.name.find('/') == std::string::npos, "{}",
                  file.name);
      FOVEA_CHECK(repository->find(file.name) == &file, "{} is there twice", file.name);
    }
    if (const auto choice = choose_weights(*repository, "it"); choice.ok()) {
      FOVEA_CHECK(choice->weights.size() == 1 || !choice->shard_index.empty(), "nothing chosen");
    }
    (void)choose_tokenizer(*repository, "it");
  }
  if (const auto shards = parse_shard_index(text); shards.ok()) {
    FOVEA_CHECK(!shards->empty(), "no shards");
    for (const std::string& shard : *shards) FOVEA_CHECK(is_plain_file_name(shard), "{}", shard);
  }
  if (const auto reference = parse_reference(text); reference.ok()) {
    // Two parts, and no way out of the models' folder.
    const std::string folder = reference->folder_name();
    const std::size_t slash = folder.find('/');
    FOVEA_CHECK(slash != 0 && slash != std::string::npos && slash + 1 < folder.size() &&
                    folder.find('/', slash + 1) == std::string::npos && folder[0] != '.' &&
                    folder[slash + 1] != '.',
                "{}", folder);
  }
  return 0;
}
