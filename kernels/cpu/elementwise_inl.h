// Element-wise kernels: one row or one head each, in the vocabulary of simd.h. Every result depends
// on its own row alone and is summed in one fixed order.
#pragma once

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd.h"

namespace lorad::kernels::cpu {
namespace {

LORAD_SIMD_INLINE int LanesLeft(int n, int i) { return n - i < kLanes ? n - i : kLanes; }

// 1 / sqrt(mean(x^2) + eps) in every lane.
LORAD_SIMD_INLINE Vec InverseRms(const float* x, int n, float eps) {
  Vec sums[4] = {Zero(), Zero(), Zero(), Zero()};
  int i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int u = 0; u < 4; ++u) {
      const Vec v = Load(x + i + u * kLanes);
      sums[u] = Fma(v, v, sums[u]);
    }
  }
  for (int u = 0; i < n; i += kLanes, ++u) {
    const Vec v = LoadPartial(x + i, LanesLeft(n, i));
    sums[u] = Fma(v, v, sums[u]);
  }
  const float sum = Sum(Add(Add(sums[0], sums[1]), Add(sums[2], sums[3])));
  return Div(Set(1.0f), Sqrt(Set(sum / static_cast<float>(n) + eps)));
}

void RmsNormKernel(const RmsNormTask& task) {
  const Vec scale = InverseRms(task.x, task.n, task.eps);
  int i = 0;
  for (; i + kLanes <= task.n; i += kLanes) {
    Store(task.y + i, Mul(Mul(Load(task.x + i), scale), Load(task.weight + i)));
  }
  if (i < task.n) {
    const int left = task.n - i;
    const Vec v = Mul(LoadPartial(task.x + i, left), scale);
    StorePartial(task.y + i, Mul(v, LoadPartial(task.weight + i, left)), left);
  }
}

LORAD_SIMD_INLINE Vec SiluTimes(Vec gate, Vec up) {
  const Vec e = Exp(Sub(Zero(), gate));
  return Mul(Div(gate, Add(Set(1.0f), e)), up);
}

void SwiGluKernel(const SwiGluTask& task) {
  int i = 0;
  for (; i + kLanes <= task.n; i += kLanes) {
    Store(task.out + i, SiluTimes(Load(task.gate + i), Load(task.up + i)));
  }
  if (i < task.n) {
    const int left = task.n - i;
    const Vec v = SiluTimes(LoadPartial(task.gate + i, left), LoadPartial(task.up + i, left));
    StorePartial(task.out + i, v, left);
  }
}

// (a, b) of the two halves becomes (a cos - b sin, b cos + a sin).
void RopeKernel(const RopeTask& task) {
  if (task.norm != nullptr) {
    RmsNormKernel({task.head, task.norm, task.head, task.head_dim, task.eps});
  }
  const int half = task.head_dim / 2;
  for (int i = 0; i < half; i += kLanes) {
    const int n = LanesLeft(half, i);
    const Vec a = LoadPartial(task.head + i, n);
    const Vec b = LoadPartial(task.head + half + i, n);
    const Vec cosine = LoadPartial(task.angles + i, n);
    const Vec sine = LoadPartial(task.angles + half + i, n);
    StorePartial(task.head + i, Sub(Mul(a, cosine), Mul(b, sine)), n);
    StorePartial(task.head + half + i, Fma(b, cosine, Mul(a, sine)), n);
  }
}

void AppendKernel(const AppendTask& task) {
  const int dim = task.head_dim;
  uint16_t rounded[kMaxHeadDim + kLanes];  // written whole vectors at a time
  for (int i = 0; i < dim; i += kLanes) {
    StoreBf16(rounded + i, LoadPartial(task.key + i, LanesLeft(dim, i)));
  }
  const int block = task.token / kKeyBlock;
  auto* keys =
      reinterpret_cast<uint16_t*>(task.page) + block * dim * kKeyBlock + task.token % kKeyBlock * 2;
  for (int pair = 0; pair < dim / 2; ++pair) {
    __builtin_memcpy(keys + pair * kKeyBlock * 2, rounded + pair * 2, 2 * sizeof(uint16_t));
  }
  auto* values = reinterpret_cast<uint16_t*>(task.page) + task.page_tokens * dim +
                 task.token * ValueStride(dim);
  for (int i = 0; i < ValueStride(dim); i += kLanes) {
    const int left = dim - i < 0 ? 0 : LanesLeft(dim, i);
    StoreBf16(values + i, LoadPartial(task.value + i, left));
  }
}

}  // namespace
}  // namespace lorad::kernels::cpu
