#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "fovea/request.h"
#include "fovea/response.h"
#include "fovea/result.h"

#include "response_json.h"

namespace fovea::wire {

/// One line of a batch's results: what became of one question about one picture file.
struct BatchRecord {
  std::string path;              ///< of the picture, as it was named
  std::string skill;             ///< "caption", "query", "detect" or "point"
  std::string text;              ///< the question or the thing; empty for a caption
  std::uint64_t size_bytes = 0;  ///< of the file when it was asked about
  std::int64_t modified_ms = 0;  ///< its last change, since 1970
  std::string key;               ///< equal for answers that belong together; see BatchQuestion
  /// Of the picture in pixels, as the coordinates refer to it; 0 when not known.
  int width = 0, height = 0;
  Result<Response> answer = Response{};
};

/// Longest line that is read. An answer of the largest context is far below it.
constexpr std::size_t kMaxBatchLine = std::size_t{16} << 20;

/// "caption", "query", "detect" or "point".
std::string_view skill_name(const SkillRequest& skill);

/// The record as one line of JSON without a newline: the record's own fields, then those of
/// response_json or error_json. Begins with kBatchLineStart. `skill` is the record's. Bytes of
/// `path` and `text` that are no UTF-8 must have been replaced before.
std::string batch_record_json(const BatchRecord& record, const SkillRequest& skill,
                              TokenIds token_ids);
constexpr std::string_view kBatchLineStart = R"({"path":")";

/// Reads such a line back. Times and token ids of the answer are left out; numbers are right to a
/// unit in their last place. Errors:
/// kInvalidArgument for a line that batch_record_json cannot have written, with what is wrong.
Result<BatchRecord> parse_batch_record(std::string_view line);

}  // namespace fovea::wire
