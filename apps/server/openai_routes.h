#pragma once

#include <memory>

#include "context.h"
#include "http.h"

namespace fovea::server {

/// POST /v1/chat/completions.
void handle_chat(const Context& context, const HttpRequest& request,
                 const std::shared_ptr<Responder>& responder);

/// POST /v1/completions: the prompt is a question without a picture.
void handle_completion(const Context& context, const HttpRequest& request,
                       const std::shared_ptr<Responder>& responder);

}  // namespace fovea::server
