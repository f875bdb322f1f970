#include "model/shard.h"

#include <algorithm>

#include "fmt/format.h"
#include "memory/base/check.h"

namespace lorad {
namespace {

// Key/value heads.
Share KvHeads(const ModelConfig& model, const Shard& shard) {
  return {int64_t{shard.rank} * model.kv_heads / shard.size,
          std::max(1, model.kv_heads / shard.size)};
}

}  // namespace

absl::Status CheckShards(const ModelConfig& model, int ranks) {
  const auto cannot = [&](int count, const char* what) {
    return absl::FailedPreconditionError(
        fmt::format("a model with {} {} cannot be split over {} ranks", count, what, ranks));
  };
  if (ranks < 1 || model.heads % ranks != 0) return cannot(model.heads, "attention heads");
  if (model.kv_heads % ranks != 0 && ranks % model.kv_heads != 0) {
    return cannot(model.kv_heads, "key/value heads");
  }
  if (model.ffn_size % ranks != 0) return cannot(model.ffn_size, "feed-forward neurons");
  return absl::OkStatus();
}

ModelConfig ShardOf(const ModelConfig& model, const Shard& shard) {
  LORAD_CHECK(CheckShards(model, shard.size).ok());
  LORAD_CHECK(shard.rank >= 0 && shard.rank < shard.size);
  ModelConfig part = model;
  part.heads /= shard.size;
  part.kv_heads = static_cast<int>(KvHeads(model, shard).count);
  part.ffn_size /= shard.size;
  return part;
}

Share QShare(const ModelConfig& model, const Shard& shard) {
  const int64_t count = model.q_size() / shard.size;
  return {shard.rank * count, count};
}

Share KvShare(const ModelConfig& model, const Shard& shard) {
  const Share heads = KvHeads(model, shard);
  return {heads.begin * model.head_dim, heads.count * model.head_dim};
}

Share FfnShare(const ModelConfig& model, const Shard& shard) {
  const int64_t count = model.ffn_size / shard.size;
  return {shard.rank * count, count};
}

int HeadRows(const ModelConfig& model, int ranks) { return (model.vocab_size + ranks - 1) / ranks; }

Share HeadShare(const ModelConfig& model, const Shard& shard) {
  const int64_t rows = HeadRows(model, shard.size);
  const int64_t begin = std::min<int64_t>(model.vocab_size, shard.rank * rows);
  return {begin, std::min<int64_t>(model.vocab_size, begin + rows) - begin};
}

}  // namespace lorad
