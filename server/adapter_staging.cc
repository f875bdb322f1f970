#include "server/adapter_staging.h"

#include <algorithm>
#include <utility>

#include "memory/base/check.h"
#include "memory/base/status_macros.h"

namespace lorad {

absl::StatusOr<std::unique_ptr<AdapterStaging>> AdapterStaging::Make(Parts parts) {
  const size_t page_bytes = parts.ranks.at(0).slab.page_bytes;
  const auto blocks =
      static_cast<uint32_t>(std::min<uint64_t>(parts.bytes / page_bytes, UINT32_MAX));
  std::unique_ptr<AdapterStaging> staging(new AdapterStaging(std::move(parts), blocks));
  if (blocks > 0) {
    LORAD_ASSIGN_OR_RETURN(staging->arena_, staging->parts_.ranks[0].backend->AllocateStaging(
                                                size_t{blocks} * page_bytes));
  }
  const std::lock_guard lock(staging->mutex_);
  staging->Changed();
  return staging;
}

absl::StatusOr<LoadedAdapter> AdapterStaging::Load(const AdapterVersion& version,
                                                   std::span<const uint32_t> pages,
                                                   std::span<const uint64_t> after_steps) {
  LORAD_CHECK(after_steps.size() == parts_.ranks.size());
  std::shared_ptr<Source> source = Find(version);
  if (source == nullptr) {
    LORAD_ASSIGN_OR_RETURN(source, Read(version));
  }
  std::vector<std::unique_ptr<kernels::AdapterTransfer>> transfers;
  for (size_t rank = 0; rank < parts_.ranks.size(); ++rank) {
    const kernels::AdapterLayout& layout = source->image->layouts[rank];
    transfers.push_back(parts_.ranks[rank].backend->StartTransfer(
        layout, PartOf(*source, *source->image, rank), parts_.ranks[rank].slab,
        pages.first(layout.pages), after_steps[rank]));
  }
  AdapterImagePtr image = source->image;
  return LoadedAdapter{std::move(image),
                       std::make_shared<ImageTransfer>(std::move(transfers), std::move(source))};
}

// The image of one rank; each takes as many pages as the largest.
std::span<std::byte> AdapterStaging::PartOf(const Source& source, const AdapterImage& image,
                                            size_t rank) const {
  const size_t bytes = source.memory.size() / parts_.ranks.size();
  return source.memory.subspan(rank * bytes, image.layouts[rank].pages * block_bytes());
}

std::shared_ptr<AdapterStaging::Source> AdapterStaging::Find(const AdapterVersion& version) {
  const std::lock_guard lock(mutex_);
  const std::optional<uint32_t> first = tier_.Acquire(version.id);
  Changed();
  if (!first.has_value()) return nullptr;
  auto source = std::make_shared<Source>(this);
  source->id = version.id;
  source->memory = Blocks(*first, BlocksOf(version));
  source->image = kept_.at(version.id).image;
  return source;
}

absl::StatusOr<std::shared_ptr<AdapterStaging::Source>> AdapterStaging::Read(
    const AdapterVersion& version) {
  LORAD_ASSIGN_OR_RETURN(std::shared_ptr<Source> source, Reserve(version));
  const TimePoint start = parts_.clock->Now();
  const ImageWriter write = [&](const AdapterImage& image, std::span<const ShardedFactors> shares) {
    for (size_t rank = 0; rank < parts_.ranks.size(); ++rank) {
      parts_.ranks[rank].backend->StageAdapter(image.layouts[rank], shares[rank].factors(),
                                               PartOf(*source, image, rank));
    }
  };
  LORAD_ASSIGN_OR_RETURN(source->image, parts_.read(version, write));
  if (source->spare == nullptr) Keep(version, *source, Seconds(parts_.clock->Now() - start));
  return source;
}

absl::StatusOr<std::shared_ptr<AdapterStaging::Source>> AdapterStaging::Reserve(
    const AdapterVersion& version) {
  auto source = std::make_shared<Source>(this);
  const uint32_t blocks = BlocksOf(version);
  const size_t bytes = blocks * block_bytes();
  {
    const std::lock_guard lock(mutex_);
    // Another load of it may be writing just now.
    const auto first =
        tier_.Contains(version.id) ? std::nullopt : tier_.BeginWrite(version.id, blocks);
    Changed();
    if (first.has_value()) {
      source->id = version.id;
      source->memory = Blocks(*first, blocks);
      return source;
    }
  }
  LORAD_ASSIGN_OR_RETURN(source->spare, SpareBuffer(bytes));
  source->memory = {source->spare->data(), bytes};
  return source;
}

absl::StatusOr<std::unique_ptr<kernels::Buffer>> AdapterStaging::SpareBuffer(size_t bytes) {
  std::unique_ptr<kernels::Buffer> buffer;
  {
    const std::lock_guard lock(mutex_);
    auto found = std::find_if(spare_.begin(), spare_.end(),
                              [bytes](const auto& b) { return b->bytes() >= bytes; });
    if (found == spare_.end()) found = spare_.begin();  // makes place for a larger one
    if (found != spare_.end()) {
      buffer = std::move(*found);
      spare_.erase(found);
    }
  }
  if (buffer != nullptr && buffer->bytes() >= bytes) return buffer;
  buffer.reset();
  return parts_.ranks[0].backend->AllocateStaging(bytes);
}

// The image is written, and held by its source.
void AdapterStaging::Keep(const AdapterVersion& version, const Source& source, double seconds) {
  const std::lock_guard lock(mutex_);
  tier_.FinishWrite(version.id, seconds);
  kept_[version.id] = {.image = source.image, .activity = version.activity};
  version.activity->staged_bytes.store(static_cast<int64_t>(source.memory.size()));
  // Nobody can ask for it again.
  if (version.activity->dropped.load()) tier_.Retire(version.id);
}

void AdapterStaging::Release(Source* source) {
  const std::lock_guard lock(mutex_);
  if (source->spare != nullptr) {
    spare_.push_back(std::move(source->spare));
  } else if (source->id != 0) {
    source->image == nullptr ? tier_.AbortWrite(source->id) : tier_.Release(source->id);
    Changed();
  }
}

bool AdapterStaging::Has(AdapterVersionId id) const {
  const std::lock_guard lock(mutex_);
  return kept_.contains(id);
}

void AdapterStaging::Retire(AdapterVersionId id) {
  const std::lock_guard lock(mutex_);
  tier_.Retire(id);
  Changed();
}

std::span<std::byte> AdapterStaging::Blocks(uint32_t first, uint32_t blocks) const {
  return {arena_->data() + first * block_bytes(), blocks * block_bytes()};
}

uint32_t AdapterStaging::BlocksOf(const AdapterVersion& version) const {
  return version.pages * static_cast<uint32_t>(parts_.ranks.size());
}

void AdapterStaging::Changed() {
  for (AdapterVersionId id : tier_.TakeLeft()) {
    const auto kept = kept_.find(id);
    LORAD_CHECK(kept != kept_.end());
    kept->second.activity->staged_bytes.store(0);
    kept_.erase(kept);
  }
  parts_.changed(Report());
}

HostTierReport AdapterStaging::Report() const {
  const HostTier::Stats stats = tier_.stats();
  return {.bytes = stats.used_blocks * uint64_t{block_bytes()},
          .capacity_bytes = stats.total_blocks * uint64_t{block_bytes()},
          .adapters = stats.images,
          .hits = stats.hits,
          .misses = stats.misses,
          .evictions = stats.evictions};
}

HostTierReport AdapterStaging::report() const {
  const std::lock_guard lock(mutex_);
  return Report();
}

absl::Status AdapterStaging::Validate() const {
  const std::lock_guard lock(mutex_);
  return tier_.Validate();
}

}  // namespace lorad
