#include "model/sharded_factors.h"

#include <algorithm>

#include "memory/base/check.h"
#include "model/matrix_slice.h"
#include "model/sites.h"

namespace lorad {

using kernels::LowRankFactors;

ShardedFactors::ShardedFactors(std::span<const LowRankFactors> factors, const ModelConfig& model,
                               const Shard& shard) {
  if (shard.whole()) {
    factors_.assign(factors.begin(), factors.end());
    return;
  }
  const Share q = QShare(model, shard), kv = KvShare(model, shard), ffn = FfnShare(model, shard);
  for (const LowRankFactors& f : factors) {
    LORAD_CHECK(f.site < SiteCount(model));
    if (f.site == LmHeadSite(model)) {
      AddOutputs(f, HeadShare(model, shard), 0);
      continue;
    }
    // A site's outputs are its projections', one after the other, of the whole model as of a rank.
    switch (static_cast<LayerSite>(f.site % kSitesPerLayer)) {
      case LayerSite::kQkv:
        AddOutputs(f, q, 0);
        AddOutputs(f, {model.q_size() + kv.begin, kv.count}, q.count);
        AddOutputs(f, {model.q_size() + model.kv_size() + kv.begin, kv.count}, q.count + kv.count);
        break;
      case LayerSite::kGateUp:
        AddOutputs(f, ffn, 0);
        AddOutputs(f, {model.ffn_size + ffn.begin, ffn.count}, ffn.count);
        break;
      case LayerSite::kOutput:
        AddInputs(f, q);
        break;
      case LayerSite::kDown:
        AddInputs(f, ffn);
        break;
    }
  }
}

void ShardedFactors::AddOutputs(const LowRankFactors& whole, const Share& share, int64_t to) {
  const int64_t begin = std::max<int64_t>(whole.out_begin, share.begin);
  const int64_t end = std::min<int64_t>(whole.out_begin + whole.b.rows, share.begin + share.count);
  if (begin >= end) return;
  LowRankFactors f = whole;
  f.out_begin = static_cast<uint32_t>(to + begin - share.begin);
  f.b = SliceRows(whole.b, begin - whole.out_begin, end - begin);
  factors_.push_back(f);
}

void ShardedFactors::AddInputs(const LowRankFactors& whole, const Share& share) {
  LowRankFactors f = whole;
  f.a = CopyColumns(whole.a, share.begin, share.count, &copies_.emplace_back());
  factors_.push_back(f);
}

}  // namespace lorad
