#include "moondream_routes.h"

#include <boost/json.hpp>
#include <cmath>
#include <string>
#include <utility>

#include "sse.h"
#include "wire/json_text.h"
#include "wire/response_json.h"

namespace fovea::server {
namespace {

namespace bj = boost::json;

bj::object metrics_object(const Usage& usage) {
  const auto ms = [](double value) { return std::round(value * 1000) / 1000; };
  return {{"input_tokens", usage.prompt_tokens},   {"output_tokens", usage.completion_tokens},
          {"cached_tokens", usage.cached_tokens},  {"prefill_time_ms", ms(usage.prefill_ms)},
          {"decode_time_ms", ms(usage.decode_ms)}, {"ttft_ms", ms(usage.ttft_ms)}};
}

/// Turns what the engine tells about one request into its HTTP answer. On the delivery thread.
class SkillAnswer {
 public:
  SkillAnswer(std::shared_ptr<Responder> responder, SkillRequest skill, std::string id)
      : responder_(std::move(responder)), skill_(std::move(skill)), id_(std::move(id)) {}

  bool on_text(std::string_view text) {
    begin();
    ++num_pieces_;
    return responder_->write(
        event({{"chunk", bj::string(text)}, {"completed", false}, {"token_index", num_pieces_}}));
  }

  void on_done(const Result<Response>& result, bool streamed) {
    if (!result.ok()) return fail(result.error());
    bj::object answer{{"request_id", id_}};
    for (auto& [key, value] : wire::response_object(skill_, *result)) {
      answer[key] = std::move(value);
    }
    answer["metrics"] = metrics_object(result->usage);
    if (!streamed) return responder_->respond(json_response(answer));
    begin();
    bj::object last{{"chunk", ""}, {"completed", true}};
    for (auto& [key, value] : answer) last[key] = std::move(value);
    responder_->write(event(last));
    responder_->end_stream();
  }

 private:
  // As late as possible: until the first word, a failure still has its own status.
  void begin() {
    if (!std::exchange(has_begun_, true)) responder_->begin_stream(sse_head());
  }

  void fail(const Error& error) {
    const ApiError failure = from_engine(error, Stage::kRun, Unsupported::k501);
    if (!has_begun_) return responder_->respond(error_response(failure));
    responder_->write(sse_event(error_body(failure)));
    responder_->abort_stream();
  }

  static std::string event(const bj::object& object) {
    return sse_event(wire::print(object, wire::Charset::kAscii));
  }

  std::shared_ptr<Responder> responder_;
  SkillRequest skill_;
  std::string id_;
  bool has_begun_ = false;
  int num_pieces_ = 0;
};

void start(const Context& context, Request request, bool stream, const std::string& id,
           const std::shared_ptr<Responder>& responder) {
  const auto answer = std::make_shared<SkillAnswer>(responder, request.skill, id);
  Callbacks callbacks;
  if (stream) callbacks.on_text = [answer](std::string_view text) { return answer->on_text(text); };
  callbacks.on_done = [answer, stream](const Result<Response>& result) {
    answer->on_done(result, stream);
  };
  const Result<std::uint64_t> submitted =
      submit(context, std::move(request), std::move(callbacks), *responder);
  if (!submitted.ok()) {
    responder->respond(
        error_response(from_engine(submitted.error(), Stage::kSubmit, Unsupported::k501)));
  }
}

}  // namespace

void handle_skill(const Context& context, wire::Skill skill, const HttpRequest& request,
                  const std::shared_ptr<Responder>& responder) {
  const auto fail = [&responder](const ApiError& error) {
    responder->respond(error_response(error));
  };
  auto body = parse_body(request);
  if (const auto* error = std::get_if<ApiError>(&body)) return fail(*error);
  auto parsed = wire::parse_skill_body(skill, std::get<bj::object>(body));
  if (const auto* error = std::get_if<wire::FieldError>(&parsed)) return fail(from_field(*error));
  auto& wanted = std::get<wire::SkillBody>(parsed);
  auto adapter = context.models.adapter_of(wanted.model, wanted.adapter);
  if (const auto* error = std::get_if<ApiError>(&adapter)) return fail(*error);
  wanted.request.adapter = std::get<std::string>(std::move(adapter));

  wanted.request.request_id = request.id;
  log_content(context, request.id, wanted.request.skill);
  const bool writes_text = skill == wire::Skill::kCaption || skill == wire::Skill::kQuery;
  with_picture(
      context, std::move(wanted.request), wanted.image, "image_url", responder,
      [context, responder, id = request.id, stream = wanted.stream && writes_text](
          Request complete) { start(context, std::move(complete), stream, id, responder); });
}

void handle_segment(const Context& context, const HttpRequest& request,
                    const std::shared_ptr<Responder>& responder) {
  const auto body = parse_body(request);
  if (const auto* error = std::get_if<ApiError>(&body)) {
    return responder->respond(error_response(*error));
  }
  responder->respond(error_response({501, "not_supported_error", "skill_not_supported",
                                     context.models.base() + " has no segmentation head", ""}));
}

}  // namespace fovea::server
