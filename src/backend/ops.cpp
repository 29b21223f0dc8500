#include "backend/ops.h"

namespace fovea {

void Ops::add_linears(Stream& stream, std::span<const LinearArgs> products) {
  for (const LinearArgs& product : products) linear(stream, product);
}

void Ops::cached_attention(Stream& stream, const CachedAttentionArgs& args) {
  if (const TauArgs& tau = args.tau; tau.weight != nullptr) {
    // Factors from the raw projection, before heads are split and rotated.
    linear(stream, {.x = tau.input, .weight = tau.weight, .y = tau.output});
    tau_scale(stream, tau.output, tau.position_scale, args.positions, args.heads, args.qkv);
  }
  rope_and_store_kv(stream, args.rope, args.positions, args.slots, args.heads, args.qkv,
                    args.pages);
  paged_attention(stream, args.qkv, args.pages, args.heads, args.batch, args.out);
}

void Ops::routed_experts(Stream& stream, const RoutedExpertsArgs& args) {
  if (args.beside != nullptr) linear(stream, *args.beside);
  moe_route(stream, args.router, args.experts, args.weights);
  moe_mlp(stream, args.x, args.experts, args.weights, args.up, args.down, args.lora, args.y);
}

}  // namespace fovea
