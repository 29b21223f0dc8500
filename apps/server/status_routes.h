#pragma once

#include <memory>

#include "context.h"
#include "http.h"
#include "http_metrics.h"

namespace fovea::server {

void handle_models(const Context& context, const HttpRequest& request,
                   const std::shared_ptr<Responder>& responder);
/// GET /v1/models/{id}; the id may hold slashes, escaped or not.
void handle_model(const Context& context, const HttpRequest& request,
                  const std::shared_ptr<Responder>& responder);
/// GET /metrics: the engine's numbers and the server's.
void handle_metrics(const Context& context, const HttpMetrics& metrics,
                    const std::shared_ptr<Responder>& responder);
/// GET /v1/stats: the queue, in the words of Moondream Station.
void handle_stats(const Context& context, const std::shared_ptr<Responder>& responder);
/// POST /tokenize and /detokenize.
void handle_tokenize(const Context& context, const HttpRequest& request,
                     const std::shared_ptr<Responder>& responder);
void handle_detokenize(const Context& context, const HttpRequest& request,
                       const std::shared_ptr<Responder>& responder);

/// GET /version.
HttpResponse version_response();

}  // namespace fovea::server
