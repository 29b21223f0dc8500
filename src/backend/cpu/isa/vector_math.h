#pragma once

// exp, exp2 and the two GELUs on vectors, within a few ulp. The polynomials are minimax fits of
// ours (Chebyshev nodes, 40 digits); the comment beside each states the error of the fit alone.

#include "simd.h"

namespace fovea::cpu::FOVEA_ISA {

// x rounded to the nearest integer, for |x| < 2^22: adding 1.5 * 2^23 leaves no fraction bits.
static inline Floats round_small(Floats x) {
  const Floats magic = splat(12582912.0f);
  return (x + magic) - magic;
}

// 2^n for integral n in [-126, 127].
static inline Floats power_of_two(Floats n) {
  return as_floats((__builtin_convertvector(n, Ints) + 127) << 23);
}

// 2^x; x below -126 gives 2^-126, x above 127 gives 2^127.
static inline Floats exp2_of(Floats x) {
  x = min(max(x, splat(-126.0f)), splat(127.0f));
  const Floats n = round_small(x);
  const Floats f = x - n;  // [-0.5, 0.5], fit error 2.0e-9
  Floats p = splat(0.000154614446986f);
  p = p * f + splat(0.00134004281776f);
  p = p * f + splat(0.00961805667852f);
  p = p * f + splat(0.0555032722667f);
  p = p * f + splat(0.240226509223f);
  p = p * f + splat(0.693147206703f);
  p = p * f + splat(1.0f);
  return p * power_of_two(n);
}

// e^x; saturates near the ends of the float range.
static inline Floats exp_of(Floats x) {
  x = min(max(x, splat(-87.3f)), splat(88.0f));
  const Floats n = round_small(x * splat(1.44269504f));
  // ln 2 in two parts, the first short enough that n * part is exact.
  Floats r = x - n * splat(0.693359375f);
  r = r - n * splat(-2.12194440e-4f);
  Floats p = splat(0.0013941108434f);  // |r| <= ln(2) / 2, fit error 2.0e-9
  p = p * r + splat(0.00837512639815f);
  p = p * r + splat(0.0416663528968f);
  p = p * r + splat(0.166664155147f);
  p = p * r + splat(0.500000004712f);
  p = p * r + splat(1.00000003772f);
  p = p * r + splat(1.0f);
  return p * power_of_two(n);
}

// 0.5 x (1 + tanh u) = x / (1 + e^-2u): no cancellation for negative x.
static inline Floats gelu_tanh(Floats x) {
  const Floats u2 = x * (splat(1.5957691216f) + splat(0.0713548162726f) * x * x);
  return x / (splat(1.0f) + exp_of(-u2));
}

// 0.5 x (1 + erf(x / sqrt 2)) = max(x, 0) - 0.5 |x| erfc(|x| / sqrt 2).
// erfc(z) e^(z^2) = t P(t) with t = 1 / (1 + 0.35 z); fit error 4.5e-9 for z in [0, 10].
static inline Floats gelu_erf(Floats x) {
  const Floats magnitude = max(x, -x);
  const Floats z = magnitude * splat(0.70710678118f);
  const Floats t = splat(1.0f) / (splat(1.0f) + splat(0.35f) * z);
  Floats p = splat(0.0366547278975f);
  p = p * t + splat(-0.149543535177f);
  p = p * t + splat(0.159641214855f);
  p = p * t + splat(0.0010456134904f);
  p = p * t + splat(0.0634051102332f);
  p = p * t + splat(0.158554689811f);
  p = p * t + splat(0.146915780866f);
  p = p * t + splat(0.188806398365f);
  p = p * t + splat(0.197030737784f);
  p = p * t + splat(0.197489266401f);
  // 0.5 z^2 of x directly: one rounding less than from z.
  const Floats tail = splat(0.5f) * magnitude * t * p * exp_of(splat(-0.5f) * x * x);
  return max(x, splat(0.0f)) - tail;
}

static inline Floats apply(Epilogue epilogue, Floats x) {
  if (epilogue == Epilogue::kGeluTanh) return gelu_tanh(x);
  if (epilogue == Epilogue::kGeluErf) return gelu_erf(x);
  return x;
}

}  // namespace fovea::cpu::FOVEA_ISA
