#include "server/adapter_catalog.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "model/sites.h"

namespace lorad {
namespace {

constexpr std::string_view kResourceType = "lorad.dev/Adapter";

absl::Status NotFound(std::string_view id) {
  return WithResource(WithReason(absl::NotFoundError(fmt::format("there is no adapter \"{}\"", id)),
                                 "ADAPTER_NOT_FOUND"),
                      kResourceType, fmt::format("adapters/{}", id));
}

bool IsBelow(const std::filesystem::path& path, const std::filesystem::path& root) {
  const auto mismatch = std::mismatch(root.begin(), root.end(), path.begin(), path.end());
  return mismatch.first == root.end();
}

}  // namespace

AdapterCatalog::AdapterCatalog(Parts parts, std::function<void(AdapterVersionId)> on_unused,
                               std::function<void(int)> on_count)
    : parts_(std::move(parts)),
      on_unused_(
          std::make_shared<const std::function<void(AdapterVersionId)>>(std::move(on_unused))),
      on_count_(std::move(on_count)) {}

absl::StatusOr<std::unique_ptr<AdapterVersion>> AdapterCatalog::Check(
    const std::filesystem::path& dir, AdapterCheck check) const {
  LORAD_ASSIGN_OR_RETURN(const PeftAdapter peft,
                         LoadPeftAdapter(dir, *parts_.model, parts_.limits, check));
  auto version = std::make_unique<AdapterVersion>();
  const kernels::AdapterLayout layout =
      parts_.backend->PlanAdapter(peft.factors(), SiteCount(*parts_.model), parts_.page_bytes);
  if (layout.pages >= parts_.pool_pages) {
    return WithReason(absl::ResourceExhaustedError(fmt::format(
                          "the adapter needs {} pages of {} bytes; the pool has {} in all",
                          layout.pages, parts_.page_bytes, parts_.pool_pages)),
                      "LARGER_THAN_POOL");
  }
  version->pages = layout.pages;
  version->image_bytes = layout.image_bytes;
  const PeftAdapterFacts& facts = peft.facts();
  version->max_rank = facts.max_rank;
  version->ranks = facts.ranks;
  version->target_modules = facts.target_modules;
  version->base_model = facts.base_model_name;
  version->alpha = facts.alpha;
  return version;
}

std::shared_ptr<const AdapterVersion> AdapterCatalog::Publish(
    std::unique_ptr<AdapterVersion> version, const StoredVersion& stored) {
  version->name = stored.id;
  version->version = stored.version;
  version->path = parts_.store->PathOf(stored);
  version->sha256 = stored.weights.sha256;
  version->file_bytes = stored.bytes();
  version->create_time = stored.create_time;

  std::shared_ptr<const AdapterVersion> old;  // let go of outside the lock
  std::shared_ptr<const AdapterVersion> published;
  int count = 0;
  {
    std::lock_guard lock(mutex_);
    version->id = next_id_++;
    published = std::shared_ptr<const AdapterVersion>(
        version.release(), [on_unused = on_unused_, store = parts_.store](const AdapterVersion* v) {
          if (v->activity->dropped.load()) {
            store->Remove(v->name, v->version).IgnoreError();  // Open removes what is left
          }
          delete v;
        });
    std::shared_ptr<const AdapterVersion>& current = current_[stored.id];
    if (current != nullptr && current->version > published->version) {
      published->activity->dropped.store(true);  // a later replacement was quicker
    } else {
      old = std::exchange(current, published);
    }
    count = static_cast<int>(current_.size());
  }
  if (old != nullptr) {
    old->activity->dropped.store(true);
    old->activity->superseded.store(true);
    (*on_unused_)(old->id);
  }
  if (on_count_) on_count_(count);
  return published;
}

std::vector<std::string> AdapterCatalog::Recover() {
  std::vector<std::string> skipped;
  for (const StoredAdapter& stored : parts_.store->List()) {
    auto version = Check(parts_.store->PathOf(stored.current), AdapterCheck::kStructure);
    if (version.ok()) {
      Publish(std::move(*version), stored.current);
    } else {
      skipped.push_back(
          fmt::format("{}: {}", stored.id(), std::string(version.status().message())));
    }
  }
  return skipped;
}

absl::StatusOr<std::shared_ptr<const AdapterVersion>> AdapterCatalog::Resolve(
    std::string_view id) const {
  std::lock_guard lock(mutex_);
  const auto found = current_.find(id);
  if (found == current_.end()) return NotFound(id);
  return found->second;
}

absl::Status AdapterCatalog::CheckCreatable(const std::string& id, bool replace) const {
  LORAD_RETURN_IF_ERROR(ValidateAdapterId(id));
  std::lock_guard lock(mutex_);
  const bool exists = current_.contains(id);
  if (exists && !replace) {
    return WithResource(
        WithReason(absl::AlreadyExistsError(
                       fmt::format("adapter \"{}\" exists; set replace to make a new version", id)),
                   "ADAPTER_EXISTS"),
        kResourceType, fmt::format("adapters/{}", id));
  }
  if (!exists && static_cast<int>(current_.size()) >= parts_.max_adapters) {
    return WithReason(absl::ResourceExhaustedError(
                          fmt::format("the server keeps at most {} adapters", parts_.max_adapters)),
                      "TOO_MANY_ADAPTERS");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const AdapterVersion>> AdapterCatalog::Commit(StagedAdapter staged,
                                                                             const std::string& id,
                                                                             bool replace) {
  LORAD_RETURN_IF_ERROR(CheckCreatable(id, replace));
  LORAD_RETURN_IF_ERROR(staged.CheckComplete());
  LORAD_ASSIGN_OR_RETURN(auto version, Check(staged.path(), AdapterCheck::kWhole));
  CommitOptions options;
  options.if_exists = replace ? IfExists::kReplace : IfExists::kRefuse;
  LORAD_ASSIGN_OR_RETURN(const StoredAdapter stored,
                         parts_.store->Commit(std::move(staged), id, options));
  return Publish(std::move(version), stored.current);
}

absl::StatusOr<std::shared_ptr<const AdapterVersion>> AdapterCatalog::CreateFromPath(
    const std::filesystem::path& path, const std::string& id, bool replace) {
  LORAD_RETURN_IF_ERROR(CheckCreatable(id, replace));
  if (path.empty() || !path.is_absolute()) return InvalidField("path", "must be an absolute path");
  std::error_code ec;
  const std::filesystem::path real = std::filesystem::canonical(path, ec);
  // Outside the roots and absent are one answer: the file system is not to be explored from here.
  const bool allowed =
      !ec && std::any_of(parts_.roots.begin(), parts_.roots.end(), [&](const auto& root) {
        std::error_code e;
        const std::filesystem::path r = std::filesystem::canonical(root, e);
        return !e && IsBelow(real, r);
      });
  if (!allowed) {
    return InvalidField("path",
                        "is not an adapter directory below one of the server's adapter roots",
                        "PATH_NOT_ALLOWED");
  }
  LORAD_ASSIGN_OR_RETURN(StagedAdapter staged, parts_.store->BeginCopy(real));
  return Commit(std::move(staged), id, replace);
}

absl::StatusOr<std::shared_ptr<const AdapterVersion>> AdapterCatalog::Import(
    const std::filesystem::path& path, const std::string& id) {
  std::error_code ec;
  const std::filesystem::path real = std::filesystem::canonical(path, ec);
  if (ec) return absl::NotFoundError(fmt::format("{}: {}", path.string(), ec.message()));
  LORAD_ASSIGN_OR_RETURN(StagedAdapter staged, parts_.store->BeginCopy(real));
  return Commit(std::move(staged), id, /*replace=*/false);
}

absl::Status AdapterCatalog::Delete(const std::string& id) {
  LORAD_RETURN_IF_ERROR(Resolve(id).status());
  LORAD_RETURN_IF_ERROR(parts_.store->Delete(id));
  std::shared_ptr<const AdapterVersion> old;  // let go of outside the lock
  int count = 0;
  {
    std::lock_guard lock(mutex_);
    const auto found = current_.find(id);
    if (found != current_.end()) {
      old = std::move(found->second);
      current_.erase(found);
    }
    count = static_cast<int>(current_.size());
  }
  if (old != nullptr) {
    old->activity->dropped.store(true);
    old->activity->superseded.store(true);
    (*on_unused_)(old->id);
  }
  if (on_count_) on_count_(count);
  return absl::OkStatus();
}

std::vector<std::shared_ptr<const AdapterVersion>> AdapterCatalog::List() const {
  std::vector<std::shared_ptr<const AdapterVersion>> list;
  std::lock_guard lock(mutex_);
  list.reserve(current_.size());
  for (const auto& [id, version] : current_) list.push_back(version);
  return list;
}

absl::StatusOr<AdapterLayoutPtr> AdapterCatalog::LoadImage(const AdapterVersion& version,
                                                           const kernels::PageSlab& slab,
                                                           std::span<const uint32_t> pages) const {
  const auto damaged = [&version](std::string_view why) {
    return WithResource(
        WithReason(absl::DataLossError(fmt::format("adapter \"{}\" version {} cannot be loaded: {}",
                                                   version.name, version.version, why)),
                   "ADAPTER_CORRUPT"),
        kResourceType, fmt::format("adapters/{}", version.name));
  };
  const auto peft =
      LoadPeftAdapter(version.path, *parts_.model, parts_.limits, AdapterCheck::kWhole);
  if (!peft.ok()) return damaged(std::string(peft.status().message()));
  auto layout = std::make_shared<const kernels::AdapterLayout>(
      parts_.backend->PlanAdapter(peft->factors(), SiteCount(*parts_.model), parts_.page_bytes));
  if (layout->pages != version.pages || layout->image_bytes != version.image_bytes) {
    return damaged("its files changed");
  }
  parts_.backend->PackAdapter(*layout, peft->factors(), slab, pages);
  return layout;
}

}  // namespace lorad
