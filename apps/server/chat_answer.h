#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "fovea/response.h"
#include "fovea/result.h"

#include "api_error.h"
#include "http.h"

namespace fovea::server {

/// Which of OpenAI's formats an answer has.
enum class ChatFormat { kChat, kCompletion };

struct ChatAnswerOptions {
  ChatFormat format = ChatFormat::kChat;
  std::string id;     ///< of the request
  std::string model;  ///< as the answer names it
  std::string fingerprint;
  int num_choices = 1;
  bool stream = false;
  bool include_usage = false;
  bool logprobs = false;
  /// The bytes that a token stands for.
  std::function<std::string(std::int32_t)> token_bytes;
};

/// Gathers what the engine tells about the choices of one request into one HTTP answer in OpenAI's
/// format, whole or streamed. Thread-safe.
class ChatAnswer {
 public:
  ChatAnswer(std::shared_ptr<Responder> responder, ChatAnswerOptions options);

  /// A piece of a choice's text, in a stream. False: nobody reads any more.
  bool on_text(int choice, std::string_view text);
  /// The end of a choice. The first failure is the failure of all.
  void on_done(int choice, Result<Response> result);
  /// A choice could not be handed to the engine.
  void fail(const ApiError& error);
  bool has_failed() const;

 private:
  void begin_choice(int choice);
  void fail_locked(const ApiError& error);
  void finish_stream_of(int choice);
  void finish();
  boost::json::object envelope(std::string_view object) const;
  boost::json::object choice_object(int choice) const;
  boost::json::object delta_chunk(int choice, boost::json::object delta) const;
  boost::json::object text_chunk(int choice, std::string_view text) const;
  boost::json::value logprobs_of(const Response& response) const;
  boost::json::object usage() const;
  bool write(const boost::json::object& event);

  std::shared_ptr<Responder> responder_;
  ChatAnswerOptions options_;
  std::int64_t created_s_;
  mutable std::mutex mutex_;
  std::vector<std::optional<Response>> responses_;
  std::vector<bool> begun_;
  int num_done_ = 0;
  bool has_begun_ = false;
  bool has_failed_ = false;
};

}  // namespace fovea::server
