#include "chat_answer.h"

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <cmath>
#include <utility>

#include "sse.h"
#include "wire/json_text.h"

namespace fovea::server {
namespace {

namespace bj = boost::json;

bj::object timings_of(const Usage& usage) {
  const auto ms = [](double value) { return std::round(value * 1000) / 1000; };
  const auto rate = [](int num, double time_ms) {
    return time_ms > 0 ? num * 1000 / time_ms : 0.0;
  };
  const int prompt_n = usage.prompt_tokens - usage.cached_tokens;
  return {{"cache_n", usage.cached_tokens},
          {"prompt_n", prompt_n},
          {"prompt_ms", ms(usage.prefill_ms)},
          {"prompt_per_second", ms(rate(prompt_n, usage.prefill_ms))},
          {"predicted_n", usage.completion_tokens},
          {"predicted_ms", ms(usage.decode_ms)},
          {"predicted_per_second", ms(rate(usage.completion_tokens, usage.decode_ms))},
          {"queue_ms", ms(usage.queue_ms)},
          {"picture_ms", ms(usage.picture_ms)},
          {"vision_ms", ms(usage.vision_ms)},
          {"ttft_ms", ms(usage.ttft_ms)}};
}

bj::array bytes_array(std::string_view bytes) {
  bj::array list;
  for (const char c : bytes)
    list.push_back(static_cast<std::int64_t>(static_cast<std::uint8_t>(c)));
  return list;
}

}  // namespace

ChatAnswer::ChatAnswer(std::shared_ptr<Responder> responder, ChatAnswerOptions options)
    : responder_(std::move(responder)),
      options_(std::move(options)),
      created_s_(std::chrono::duration_cast<std::chrono::seconds>(
                     std::chrono::system_clock::now().time_since_epoch())
                     .count()),
      responses_(static_cast<std::size_t>(options_.num_choices)),
      begun_(static_cast<std::size_t>(options_.num_choices), false) {}

bool ChatAnswer::has_failed() const {
  const std::lock_guard lock(mutex_);
  return has_failed_;
}

bj::object ChatAnswer::envelope(std::string_view object) const {
  const bool is_chat = options_.format == ChatFormat::kChat;
  return {{"id", (is_chat ? "chatcmpl-" : "cmpl-") + options_.id},
          {"object", bj::string(object)},
          {"created", created_s_},
          {"model", options_.model},
          {"system_fingerprint", options_.fingerprint}};
}

bj::object ChatAnswer::delta_chunk(int choice, bj::object delta) const {
  bj::object chunk = envelope("chat.completion.chunk");
  chunk["choices"] = bj::array{bj::object{{"index", choice},
                                          {"delta", std::move(delta)},
                                          {"logprobs", nullptr},
                                          {"finish_reason", nullptr}}};
  return chunk;
}

bj::object ChatAnswer::text_chunk(int choice, std::string_view text) const {
  if (options_.format == ChatFormat::kChat) {
    return delta_chunk(choice, {{"content", bj::string(text)}});
  }
  bj::object chunk = envelope("text_completion");
  chunk["choices"] = bj::array{bj::object{{"index", choice},
                                          {"text", bj::string(text)},
                                          {"logprobs", nullptr},
                                          {"finish_reason", nullptr}}};
  return chunk;
}

bool ChatAnswer::write(const bj::object& event) {
  return responder_->write(sse_event(wire::print(event, wire::Charset::kAscii)));
}

// As late as possible: until the first word, a failure still has its own status.
void ChatAnswer::begin_choice(int choice) {
  if (!std::exchange(has_begun_, true)) responder_->begin_stream(sse_head());
  if (begun_[static_cast<std::size_t>(choice)]) return;
  begun_[static_cast<std::size_t>(choice)] = true;
  if (options_.format == ChatFormat::kChat) {
    write(delta_chunk(choice, {{"role", "assistant"}, {"content", ""}}));
  }
}

bool ChatAnswer::on_text(int choice, std::string_view text) {
  const std::lock_guard lock(mutex_);
  if (has_failed_) return false;
  begin_choice(choice);
  return write(text_chunk(choice, text));
}

void ChatAnswer::on_done(int choice, Result<Response> result) {
  const std::lock_guard lock(mutex_);
  if (has_failed_) return;
  if (!result.ok()) {
    return fail_locked(from_engine(result.error(), Stage::kRun, Unsupported::k400));
  }
  responses_[static_cast<std::size_t>(choice)] = std::move(*result);
  if (options_.stream) finish_stream_of(choice);
  if (++num_done_ == options_.num_choices) finish();
}

void ChatAnswer::fail(const ApiError& error) {
  const std::lock_guard lock(mutex_);
  if (!has_failed_) fail_locked(error);
}

void ChatAnswer::fail_locked(const ApiError& error) {
  has_failed_ = true;
  if (!has_begun_) return responder_->respond(error_response(error));
  responder_->write(sse_event(error_body(error)));
  responder_->abort_stream();
}

bj::value ChatAnswer::logprobs_of(const Response& response) const {
  if (!options_.logprobs) return nullptr;
  const auto entry = [this](std::int32_t id, float logprob) {
    const std::string bytes = options_.token_bytes(id);
    return bj::object{{"token", bj::string(bytes)},
                      {"logprob", static_cast<double>(logprob)},
                      {"bytes", bytes_array(bytes)}};
  };
  bj::array content, tokens, token_logprobs;
  for (const TokenLogprob& token : response.logprobs) {
    bj::object item = entry(token.id, token.logprob);
    tokens.push_back(item["token"]);
    token_logprobs.push_back(item["logprob"]);
    bj::array rivals;
    for (const auto& [id, logprob] : token.top) rivals.push_back(entry(id, logprob));
    item["top_logprobs"] = std::move(rivals);
    content.push_back(std::move(item));
  }
  if (options_.format == ChatFormat::kChat) return bj::object{{"content", std::move(content)}};
  return bj::object{{"tokens", std::move(tokens)}, {"token_logprobs", std::move(token_logprobs)}};
}

bj::object ChatAnswer::usage() const {
  std::int64_t prompt = 0, completion = 0, cached = 0;
  for (const auto& response : responses_) {
    if (!response) continue;
    // The choices share their prompt.
    prompt = std::max<std::int64_t>(prompt, response->usage.prompt_tokens);
    cached = std::max<std::int64_t>(cached, response->usage.cached_tokens);
    completion += response->usage.completion_tokens;
  }
  return {{"prompt_tokens", prompt},
          {"completion_tokens", completion},
          {"total_tokens", prompt + completion},
          {"prompt_tokens_details", bj::object{{"cached_tokens", cached}}}};
}

void ChatAnswer::finish_stream_of(int choice) {
  begin_choice(choice);
  const Response& response = *responses_[static_cast<std::size_t>(choice)];
  bj::object last = text_chunk(choice, "");
  bj::object& object = last["choices"].as_array()[0].as_object();
  if (options_.format == ChatFormat::kChat) {
    bj::object delta;
    if (response.reasoning) {
      delta["reasoning"] = response.reasoning->text;
      delta["reasoning_content"] = response.reasoning->text;
    }
    object["delta"] = std::move(delta);
  }
  object["logprobs"] = logprobs_of(response);
  object["finish_reason"] = bj::string(finish_reason_name(response.finish_reason));
  write(last);
}

bj::object ChatAnswer::choice_object(int choice) const {
  const Response& response = *responses_[static_cast<std::size_t>(choice)];
  bj::object object{{"index", choice}};
  if (options_.format == ChatFormat::kChat) {
    bj::object message{{"role", "assistant"}, {"content", response.text}, {"refusal", nullptr}};
    if (response.reasoning) {
      message["reasoning"] = response.reasoning->text;
      message["reasoning_content"] = response.reasoning->text;
    }
    object["message"] = std::move(message);
  } else {
    object["text"] = response.text;
  }
  object["logprobs"] = logprobs_of(response);
  object["finish_reason"] = bj::string(finish_reason_name(response.finish_reason));
  return object;
}

void ChatAnswer::finish() {
  const bool is_chat = options_.format == ChatFormat::kChat;
  if (options_.stream) {
    if (options_.include_usage) {
      bj::object chunk = envelope(is_chat ? "chat.completion.chunk" : "text_completion");
      chunk["choices"] = bj::array();
      chunk["usage"] = usage();
      chunk["timings"] = timings_of(responses_[0]->usage);
      write(chunk);
    }
    responder_->write(sse_event("[DONE]"));
    return responder_->end_stream();
  }
  bj::object answer = envelope(is_chat ? "chat.completion" : "text_completion");
  bj::array choices;
  for (int i = 0; i < options_.num_choices; ++i) choices.push_back(choice_object(i));
  answer["choices"] = std::move(choices);
  answer["usage"] = usage();
  answer["timings"] = timings_of(responses_[0]->usage);
  responder_->respond(
      {.status = 200, .headers = {}, .body = wire::print(answer, wire::Charset::kAscii)});
}

}  // namespace fovea::server
