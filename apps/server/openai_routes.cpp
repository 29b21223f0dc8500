#include "openai_routes.h"
namespace fovea::server {
void handle_chat(const Context&, const HttpRequest&, const std::shared_ptr<Responder>&) {}
void handle_completion(const Context&, const HttpRequest&, const std::shared_ptr<Responder>&) {}
}  // namespace fovea::server
