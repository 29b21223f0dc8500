#pragma once

#include "fovea/result.h"

#include "base/json_fwd.h"
#include "model/config.h"

namespace fovea {

/// Overrides `config` with the objects "text", "vision", "region" and "tokenizer" of a config.json.
/// Keys that are not known are ignored. Errors name the field ("text.n_heads must be a whole
/// number").
Status apply_config_json(const json::value& document, ModelConfig& config);

}  // namespace fovea
