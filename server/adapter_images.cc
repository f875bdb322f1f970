#include "server/adapter_images.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "model/sites.h"

namespace lorad {
namespace {

constexpr std::string_view kLmHead = "lm_head";

// Shapes without data: all that a layout needs.
kernels::LowRankFactors Shapes(uint32_t site, int out_begin, int out_cols, int in_cols, int rank) {
  const auto matrix = [](int64_t rows, int64_t cols) {
    return kernels::HostMatrix{kernels::DType::kF32, nullptr, rows, cols};
  };
  return {.site = site,
          .out_begin = static_cast<uint32_t>(out_begin),
          .a = matrix(rank, in_cols),
          .b = matrix(out_cols, rank)};
}

}  // namespace

AdapterImages::AdapterImages(const Parts& parts)
    : parts_(parts),
      table_(FactsFingerprint(*parts.model, parts.ranks.at(0)->name(), parts.page_bytes,
                              parts.ranks.size())) {}

absl::Status AdapterImages::CheckLimits(const AdapterFacts& facts) const {
  if (facts.pages >= parts_.pool_pages) {
    return WithReason(absl::ResourceExhaustedError(fmt::format(
                          "the adapter needs {} pages of {} bytes; the pool has {} in all",
                          facts.pages, parts_.page_bytes, parts_.pool_pages)),
                      "LARGER_THAN_POOL");
  }
  if (facts.max_rank > parts_.limits.max_rank) {
    return InvalidField("r", fmt::format("rank {} exceeds the server's limit of {}", facts.max_rank,
                                         parts_.limits.max_rank));
  }
  return absl::OkStatus();
}

absl::StatusOr<AdapterFactsPtr> AdapterImages::Check(const std::filesystem::path& directory,
                                                     AdapterCheck check) {
  LORAD_ASSIGN_OR_RETURN(const PeftAdapter peft,
                         LoadPeftAdapter(directory, *parts_.model, parts_.limits, check));
  const AdapterImage image = Plan(SharesOf(peft.factors()));
  const PeftAdapterFacts& found = peft.facts();
  AdapterFacts facts{.image_bytes = image.bytes(),
                     .pages = image.pages(),
                     .max_rank = found.max_rank,
                     .ranks = found.ranks,
                     .target_modules = found.target_modules,
                     .base_model = found.base_model_name,
                     .alpha = found.alpha};
  LORAD_RETURN_IF_ERROR(CheckLimits(facts));
  return table_.FromText(FactsText(facts));
}

absl::StatusOr<AdapterFactsPtr> AdapterImages::Recall(std::string_view text) {
  LORAD_ASSIGN_OR_RETURN(AdapterFactsPtr facts, table_.FromText(text));
  LORAD_RETURN_IF_ERROR(CheckLimits(*facts));
  return facts;
}

std::string AdapterImages::FactsText(const AdapterFacts& facts) const {
  return FactsToText(facts, table_.fingerprint());
}

absl::StatusOr<AdapterImagePtr> AdapterImages::Load(const std::filesystem::path& directory,
                                                    const AdapterFacts& facts,
                                                    const ImageWriter& write) const {
  const auto damaged = [](std::string_view why) {
    return WithReason(absl::DataLossError(std::string(why)), "ADAPTER_CORRUPT");
  };
  const auto peft = LoadPeftAdapter(directory, *parts_.model, parts_.limits, AdapterCheck::kWhole);
  if (!peft.ok()) return damaged(std::string(peft.status().message()));
  const std::vector<ShardedFactors> shares = SharesOf(peft->factors());
  auto image = std::make_shared<const AdapterImage>(Plan(shares));
  if (image->pages() != facts.pages || image->bytes() != facts.image_bytes) {
    return damaged("its files changed");
  }
  write(*image, shares);
  return image;
}

std::vector<ShardedFactors> AdapterImages::SharesOf(
    std::span<const kernels::LowRankFactors> factors) const {
  std::vector<ShardedFactors> shares;
  const auto size = static_cast<int>(parts_.ranks.size());
  for (int rank = 0; rank < size; ++rank) {
    shares.emplace_back(factors, *parts_.model, Shard{rank, size});
  }
  return shares;
}

AdapterImage AdapterImages::Plan(std::span<const ShardedFactors> shares) const {
  AdapterImage image;
  for (size_t rank = 0; rank < shares.size(); ++rank) {
    image.layouts.push_back(parts_.ranks[rank]->PlanAdapter(
        shares[rank].factors(), SiteCount(*parts_.model), parts_.page_bytes));
  }
  return image;
}

absl::StatusOr<AdapterImage> AdapterImages::PlanFor(int rank,
                                                    std::span<const std::string> modules) const {
  if (rank < 1 || rank > parts_.limits.max_rank) {
    return InvalidField("rank", fmt::format("must be in [1, {}]", parts_.limits.max_rank));
  }
  const ModelConfig& model = *parts_.model;
  const auto projections = Projections(model);
  std::set<std::string_view> wanted;
  for (size_t i = 0; i < modules.size(); ++i) {
    const bool known =
        modules[i] == kLmHead || std::any_of(projections.begin(), projections.end(),
                                             [&](const auto& p) { return p.name == modules[i]; });
    if (!known) {
      return InvalidField(fmt::format("target_modules[{}]", i),
                          "is no module that adapters may change");
    }
    wanted.insert(modules[i]);
  }
  const auto wants = [&](std::string_view name) { return wanted.empty() || wanted.contains(name); };
  std::vector<kernels::LowRankFactors> factors;
  for (int layer = 0; layer < model.layers; ++layer) {
    for (const Projection& p : projections) {
      if (!wants(p.name)) continue;
      factors.push_back(Shapes(SiteIndex(layer, p.site), p.out_begin, p.out_cols, p.in_cols, rank));
    }
  }
  if (wants(kLmHead)) {
    factors.push_back(Shapes(LmHeadSite(model), 0, model.vocab_size, model.hidden_size, rank));
  }
  return Plan(SharesOf(factors));
}

}  // namespace lorad
