// What a batch reads beside pictures: a line of its results when a run goes on, and a list of
// paths; the same bytes are read as both. A line that is accepted says the same once it is written
// and read again.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "fovea/engine.h"

#include "path_list.h"
#include "wire/batch_record.h"

namespace fovea {
// The library asks for it; no engine is needed here.
const char* version() { return "fuzz"; }
}  // namespace fovea

namespace {

fovea::SkillRequest skill_of(std::string_view name) {
  if (name == "query") return fovea::QueryRequest{};
  if (name == "detect") return fovea::DetectRequest{};
  if (name == "point") return fovea::PointRequest{};
  return fovea::CaptionRequest{};
}

void check(bool holds, const std::string& line) {
  if (holds) return;
  std::fprintf(stderr, "not the same again: %s\n", line.c_str());
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace fovea::wire;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const std::string& path : fovea::cli::split_list(text)) {
    const char separator = text.find('\0') == std::string_view::npos ? '\n' : '\0';
    check(!path.empty() && path.find(separator) == std::string::npos, path);
    check(text.find(path) != std::string_view::npos, path);
  }
  const auto record = parse_batch_record(text);
  if (!record.ok()) return 0;
  if (record->answer.ok() && record->skill != skill_name(skill_of(record->skill))) std::abort();
  const std::string line = batch_record_json(*record, skill_of(record->skill), TokenIds::kLeaveOut);
  const auto again = parse_batch_record(line);
  check(again.ok(), line);
  check(again->path == record->path && again->text == record->text && again->key == record->key &&
            again->size_bytes == record->size_bytes && again->modified_ms == record->modified_ms &&
            again->answer.ok() == record->answer.ok(),
        line);
  if (!again->answer.ok()) return 0;
  check(again->answer->text == record->answer->text &&
            again->answer->boxes.size() == record->answer->boxes.size() &&
            again->answer->points.size() == record->answer->points.size() &&
            again->answer->reasoning.has_value() == record->answer->reasoning.has_value(),
        line);
  return 0;
}
