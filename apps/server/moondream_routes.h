#pragma once

#include <memory>

#include "context.h"
#include "http.h"
#include "wire/request_json.h"

namespace fovea::server {

/// POST /v1/caption, query, detect and point of the Moondream protocol, streamed or not.
void handle_skill(const Context& context, wire::Skill skill, const HttpRequest& request,
                  const std::shared_ptr<Responder>& responder);

/// POST /v1/segment: the models here have no segmentation.
void handle_segment(const Context& context, const HttpRequest& request,
                    const std::shared_ptr<Responder>& responder);

}  // namespace fovea::server
