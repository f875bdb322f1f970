// AdapterImages: what the files of an adapter mean for this base model and this backend: whether
// they fit, how large their image is, and the image itself, written into pages of the pool.
//
// Thread-safe; reads files, so not for gRPC's or the engine's threads (but PlanFor reads none).
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "model/adapter_image.h"
#include "model/model_config.h"
#include "model/peft_adapter.h"
#include "model/sharded_factors.h"
#include "server/adapter_facts.h"

namespace lorad {

// Writes an image somewhere: that of `shares`, by rank, which it was planned for.
using ImageWriter =
    std::function<void(const AdapterImage& image, std::span<const ShardedFactors> shares)>;

class AdapterImages {
 public:
  struct Parts {  // borrowed
    const ModelConfig* model = nullptr;
    std::vector<const kernels::Backend*> ranks;  // at least one; equal pages on all
    AdapterLimits limits;
    size_t page_bytes = 0;
    uint32_t pool_pages = 0;
  };
  explicit AdapterImages(const Parts& parts);

  // The facts of the files in `directory`, or what is wrong with them (model/peft_adapter.h);
  // ResourceExhausted LARGER_THAN_POOL. kWhole for what comes from outside.
  absl::StatusOr<AdapterFactsPtr> Check(const std::filesystem::path& directory, AdapterCheck check);
  // The same from what Check found before, as FactsText gave it. FailedPrecondition: the files must
  // be checked again.
  absl::StatusOr<AdapterFactsPtr> Recall(std::string_view text);
  std::string FactsText(const AdapterFacts& facts) const;

  // Reads the files again and has their image written, which takes as many pages as `facts` say. An
  // error of any kind is DataLoss ADAPTER_CORRUPT: they are not what was checked.
  absl::StatusOr<AdapterImagePtr> Load(const std::filesystem::path& directory,
                                       const AdapterFacts& facts, const ImageWriter& write) const;

  // The image of an adapter with matrices of this rank in every layer's `modules` (as Hugging Face
  // names them; none: all that adapters may change). InvalidArgument names the field "rank" or
  // "target_modules[i]".
  absl::StatusOr<AdapterImage> PlanFor(int rank, std::span<const std::string> modules) const;

  size_t page_bytes() const { return parts_.page_bytes; }

 private:
  absl::Status CheckLimits(const AdapterFacts& facts) const;
  // By rank.
  std::vector<ShardedFactors> SharesOf(std::span<const kernels::LowRankFactors> factors) const;
  AdapterImage Plan(std::span<const ShardedFactors> shares) const;

  const Parts parts_;
  FactsTable table_;
};

}  // namespace lorad
