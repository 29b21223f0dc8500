#include "skills/registry.h"

#include "base/try.h"
#include "skills/validation.h"

namespace fovea::skills {

SkillFactory make_factory(const SkillContext& model) {
  SkillContext context = model;
  if (!context.token_trie) context.token_trie = std::make_shared<LazyTokenTrie>();
  return [context](const Request& request) -> Result<std::unique_ptr<SkillState>> {
    FOVEA_TRY_STATUS(check_sampling(request.sampling));
    FOVEA_TRY_STATUS(check_scheduling(request));
    if (const auto* caption = std::get_if<CaptionRequest>(&request.skill)) {
      return make_caption(context, request, *caption);
    }
    if (const auto* query = std::get_if<QueryRequest>(&request.skill))
      return make_query(context, request, *query);
    if (const auto* detect = std::get_if<DetectRequest>(&request.skill)) {
      return make_detect(context, request, *detect);
    }
    return make_point(context, request, std::get<PointRequest>(request.skill));
  };
}

}  // namespace fovea::skills
