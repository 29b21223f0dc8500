#pragma once

#include <string>
#include <string_view>

namespace fovea {

/// A small tokenizer.json, valid as it stands; tests replace one part each. Every member is a piece
/// of JSON.
struct TokenizerJson {
  std::string added = "[]";
  std::string normalizer = "null";
  std::string pre_tokenizer = R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":true})";
  std::string post_processor = "null";
  std::string decoder = R"({"type":"ByteLevel"})";
  /// " " is spelled "\u0120" in a byte-level vocabulary.
  std::string vocab = R"({"a":0,"b":1,"c":2,"\u0120":3,"ab":4,"abc":5,"\u0120a":6})";
  std::string merges = R"([["a","b"],["ab","c"],["\u0120","a"]])";
  std::string options = "";  ///< more members of the model, each with a leading comma

  std::string text() const {
    return R"({"version":"1.0","added_tokens":)" + added + R"(,"normalizer":)" + normalizer +
           R"(,"pre_tokenizer":)" + pre_tokenizer + R"(,"post_processor":)" + post_processor +
           R"(,"decoder":)" + decoder + R"(,"model":{"type":"BPE","vocab":)" + vocab +
           R"(,"merges":)" + merges + options + "}}";
  }
};

/// One entry of "added_tokens". `more` is more members, each with a leading comma.
inline std::string added_token(int id, std::string_view content, bool special,
                               std::string_view more = "") {
  return R"({"id":)" + std::to_string(id) + R"(,"content":")" + std::string(content) +
         R"(","special":)" + (special ? "true" : "false") + std::string(more) + "}";
}

}  // namespace fovea
