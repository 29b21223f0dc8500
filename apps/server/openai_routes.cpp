#include "openai_routes.h"

#include <boost/json.hpp>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "chat_answer.h"
#include "chat_request.h"

namespace fovea::server {
namespace {

namespace bj = boost::json;

// One engine request for each choice: they share the prompt through the prefix cache, and differ in
// their seeds.
void start(const Context& context, const Request& request, int num_choices, bool stream,
           const std::shared_ptr<ChatAnswer>& answer, Responder& responder) {
  std::vector<std::uint64_t> ids;
  for (int choice = 0; choice < num_choices && !answer->has_failed(); ++choice) {
    Request one = request;
    one.sampling.seed += static_cast<std::uint64_t>(choice);
    Callbacks callbacks;
    if (stream) {
      callbacks.on_text = [answer, choice](std::string_view text) {
        return answer->on_text(choice, text);
      };
    }
    callbacks.on_done = [answer, choice](Result<Response> result) {
      answer->on_done(choice, std::move(result));
    };
    const auto submitted = submit(context, std::move(one), std::move(callbacks), responder);
    if (!submitted.ok()) {
      for (const std::uint64_t id : ids) context.engine.cancel(id);
      return answer->fail(from_engine(submitted.error(), Stage::kSubmit, Unsupported::k400));
    }
    ids.push_back(*submitted);
  }
}

void answer_chat(const Context& context, ChatFormat format, ChatRequest chat,
                 const HttpRequest& request, const std::shared_ptr<Responder>& responder) {
  auto adapter = context.models.adapter_of(chat.model, "");
  if (const auto* error = std::get_if<ApiError>(&adapter)) {
    return responder->respond(error_response(*error));
  }
  chat.request.adapter = std::get<std::string>(std::move(adapter));
  chat.request.request_id = request.id;
  log_content(context, request.id, chat.request.skill);
  ChatAnswerOptions options{
      .format = format,
      .id = request.id,
      .model = chat.model.empty() ? context.models.base() : chat.model,
      .fingerprint = std::string("fovea-") + version() + "-" + context.engine.info().device,
      .num_choices = chat.num_choices,
      .stream = chat.stream,
      .include_usage = chat.include_usage,
      .logprobs = chat.request.sampling.top_logprobs.has_value(),
      .token_bytes = [&engine = context.engine](std::int32_t id) {
        return engine.token_bytes(id);
      }};
  const auto answer = std::make_shared<ChatAnswer>(responder, std::move(options));
  with_picture(context, std::move(chat.request), chat.image, "messages", responder,
               [context, responder, answer, num_choices = chat.num_choices,
                stream = chat.stream](const Request& complete) {
                 start(context, complete, num_choices, stream, answer, *responder);
               });
}

template <class Parse>
void handle(const Context& context, ChatFormat format, const HttpRequest& request,
            const std::shared_ptr<Responder>& responder, Parse parse) {
  const auto body = parse_body(request);
  if (const auto* error = std::get_if<ApiError>(&body)) {
    return responder->respond(error_response(*error));
  }
  auto parsed = parse(std::get<bj::object>(body));
  if (const auto* error = std::get_if<wire::FieldError>(&parsed)) {
    return responder->respond(error_response(from_field(*error)));
  }
  answer_chat(context, format, std::get<ChatRequest>(std::move(parsed)), request, responder);
}

}  // namespace

void handle_chat(const Context& context, const HttpRequest& request,
                 const std::shared_ptr<Responder>& responder) {
  handle(context, ChatFormat::kChat, request, responder, parse_chat);
}

void handle_completion(const Context& context, const HttpRequest& request,
                       const std::shared_ptr<Responder>& responder) {
  handle(context, ChatFormat::kCompletion, request, responder, parse_completion);
}

}  // namespace fovea::server
