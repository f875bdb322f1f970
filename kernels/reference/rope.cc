#include <algorithm>
#include <cmath>

#include "kernels/reference/reference_backend.h"
#include "kernels/reference/storage.h"
#include "memory/base/check.h"

namespace lorad::kernels::reference {
namespace {

void NormHead(std::span<float> head, const Vector* norm, float eps) {
  if (norm == nullptr) return;
  const auto weight = Of(*norm);
  LORAD_CHECK(weight.size() == head.size());
  const double scale = 1.0 / std::sqrt(Dot(head, head) / double(head.size()) + double{eps});
  for (size_t i = 0; i < head.size(); ++i) {
    head[i] = static_cast<float>(head[i] * scale * weight[i]);
  }
}

// (a, b) of the two halves becomes (a cos - b sin, b cos + a sin).
void Rotate(std::span<float> head, std::span<const float> angles) {
  const size_t half = head.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    const double a = head[i];
    const double b = head[i + half];
    const double cosine = angles[i];
    const double sine = angles[i + half];
    head[i] = static_cast<float>(a * cosine - b * sine);
    head[i + half] = static_cast<float>(b * cosine + a * sine);
  }
}

}  // namespace

void ReferenceBackend::RopeAngles(std::span<const int32_t> positions, const Vector& inv_freq,
                                  Tensor& angles) {
  const auto frequencies = Of(inv_freq);
  for (size_t i = 0; i < positions.size(); ++i) {
    const auto row = Of(angles).Row(static_cast<int>(i));
    LORAD_CHECK(row.size() == 2 * frequencies.size());
    for (size_t f = 0; f < frequencies.size(); ++f) {
      // The models were trained with angles rounded to fp32: at long positions that rounding is
      // part of the model.
      const float angle = static_cast<float>(positions[i]) * frequencies[f];
      row[f] = static_cast<float>(std::cos(double{angle}));
      row[f + frequencies.size()] = static_cast<float>(std::sin(double{angle}));
    }
  }
}

void ReferenceBackend::RopeAppend(const RopeAppendArgs& args) {
  const size_t heads = size_t(args.shape.heads);
  const size_t kv_heads = size_t(args.shape.kv_heads);
  const size_t dim = size_t(args.shape.head_dim);
  LORAD_CHECK(size_t(args.qkv->cols()) == (heads + 2 * kv_heads) * dim);
  for (const SequenceRows& sequence : args.sequences) {
    for (int row = sequence.first_row; row < sequence.end_row; ++row) {
      const int position = sequence.first_position + row - sequence.first_row;
      const auto angles = Of(*args.angles).Row(row);
      const auto qkv = Of(*args.qkv).Row(row);
      for (size_t h = 0; h < heads + kv_heads; ++h) {
        const auto head = qkv.subspan(h * dim, dim);
        NormHead(head, h < heads ? args.q_norm : args.k_norm, args.norm_eps);
        Rotate(head, angles);
      }
      for (size_t h = 0; h < kv_heads; ++h) {
        const auto key = kv_.At(sequence.kv_pages, position, args.layer, KvPages::kKey, int(h));
        const auto value = kv_.At(sequence.kv_pages, position, args.layer, KvPages::kValue, int(h));
        std::ranges::copy(qkv.subspan((heads + h) * dim, dim), key.begin());
        std::ranges::copy(qkv.subspan((heads + kv_heads + h) * dim, dim), value.begin());
      }
    }
  }
}

}  // namespace lorad::kernels::reference
