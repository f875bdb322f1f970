#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/reference/reference_backend.h"
#include "kernels/reference/storage.h"
#include "memory/base/check.h"

namespace lorad::kernels::reference {

void ReferenceBackend::Attention(const AttentionArgs& args) {
  const AttentionShape& shape = args.shape;
  const size_t dim = size_t(shape.head_dim);
  const int group = shape.heads / shape.kv_heads;
  LORAD_CHECK(group * shape.kv_heads == shape.heads);
  LORAD_CHECK(args.out->cols() == shape.heads * shape.head_dim);
  for (const SequenceRows& sequence : args.sequences) {
    for (int row = sequence.first_row; row < sequence.end_row; ++row) {
      const int position = sequence.first_position + row - sequence.first_row;
      const int first = shape.window > 0 ? std::max(0, position - shape.window + 1) : 0;
      for (int head = 0; head < shape.heads; ++head) {
        const auto query = Of(*args.qkv).Row(row).subspan(size_t(head) * dim, dim);
        std::vector<double> scores;  // [position - first + 1]
        for (int p = first; p <= position; ++p) {
          const auto key = kv_.At(sequence.kv_pages, p, args.layer, KvPages::kKey, head / group);
          scores.push_back(Dot(query, key) * double{shape.scale});
        }
        const double highest = *std::ranges::max_element(scores);
        double total = 0;
        std::vector<double> sum(dim, 0.0);
        for (int p = first; p <= position; ++p) {
          const double weight = std::exp(scores[size_t(p - first)] - highest);
          const auto value =
              kv_.At(sequence.kv_pages, p, args.layer, KvPages::kValue, head / group);
          total += weight;
          for (size_t d = 0; d < dim; ++d) sum[d] += weight * double{value[d]};
        }
        const auto out = Of(*args.out).Row(row).subspan(size_t(head) * dim, dim);
        for (size_t d = 0; d < dim; ++d) out[d] = static_cast<float>(sum[d] / total);
      }
    }
  }
}

}  // namespace lorad::kernels::reference
