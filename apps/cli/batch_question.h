#pragma once

#include <filesystem>
#include <string>

#include "fovea/request.h"

#include "args.h"

namespace fovea::cli {

/// The question, or the thing to look for; empty for a caption.
std::string text_of(const SkillRequest& question);

/// 16 hexadecimal digits that stand for everything an answer depends on but the picture and the
/// text: the skill and its options, how words are chosen, the model's files and the adapter (their
/// names, sizes and times of change). Answers with equal keys belong together. What only says how
/// fast an answer comes (threads, sequences at once, the device) does not count.
std::string batch_key(const BatchArgs& args, const std::filesystem::path& model);

}  // namespace fovea::cli
