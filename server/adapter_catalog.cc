// What the catalog shows, and how a change becomes visible. The changes themselves are in
// adapter_catalog_changes.cc, the start in adapter_catalog_recover.cc.
#include "server/adapter_catalog.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "memory/store_errors.h"

namespace lorad {

AdapterCatalog::AdapterCatalog(Parts parts, Hooks hooks)
    : parts_(std::move(parts)), hooks_(std::make_shared<const Hooks>(std::move(hooks))) {}

absl::StatusOr<AdapterVersionPtr> AdapterCatalog::Resolve(std::string_view caller,
                                                          std::string_view name) const {
  if (name.empty()) name = parts_.tenants->Of(caller).default_adapter;
  if (name.empty() || name == kBaseModelName) return AdapterVersionPtr();
  LORAD_ASSIGN_OR_RETURN(const AdapterName parsed, ParseAdapterName(name, "adapter"));
  const std::lock_guard lock(mutex_);
  LORAD_ASSIGN_OR_RETURN(AdapterInfo info, directory_.Find(caller, parsed));
  return std::move(info.version);
}

absl::StatusOr<AdapterInfo> AdapterCatalog::Get(std::string_view caller,
                                                std::string_view name) const {
  LORAD_ASSIGN_OR_RETURN(const AdapterName parsed, ParseAdapterName(name, "name"));
  const std::lock_guard lock(mutex_);
  return directory_.Find(caller, parsed);
}

absl::StatusOr<std::vector<AdapterInfo>> AdapterCatalog::Versions(std::string_view caller,
                                                                  std::string_view name) const {
  LORAD_ASSIGN_OR_RETURN(const AdapterName parsed, ParseAdapterName(name, "name"));
  if (parsed.version != 0) return InvalidField("name", "must not name a version");
  const std::lock_guard lock(mutex_);
  LORAD_ASSIGN_OR_RETURN(const AdapterInfo current, directory_.Find(caller, parsed));
  const Entry& entry = *directory_.Get(current.id());
  std::vector<AdapterInfo> versions = {current};
  for (const AdapterVersionPtr& old : entry.kept) {
    if (old->facts != nullptr) versions.push_back(entry.InfoOf(old));
  }
  return versions;
}

std::vector<AdapterInfo> AdapterCatalog::List(std::string_view caller, std::string_view after,
                                              size_t most) const {
  std::vector<AdapterInfo> list;
  const std::lock_guard lock(mutex_);
  while (list.size() < most) {
    const Entry* entry = directory_.After(caller, after);
    if (entry == nullptr) break;
    list.push_back(entry->Info());
    after = entry->current->name;
  }
  return list;
}

int AdapterCatalog::Count(std::string_view caller) const {
  const std::lock_guard lock(mutex_);
  return directory_.Count(caller);
}

std::optional<AdapterInfo> AdapterCatalog::Peek(std::string_view caller,
                                                std::string_view id) const {
  if (!MaySee(caller, id)) return std::nullopt;
  const std::lock_guard lock(mutex_);
  return Now(id);
}

std::optional<AdapterInfo> AdapterCatalog::Now(std::string_view id) const {
  const Entry* entry = directory_.Get(id);
  return entry == nullptr ? std::nullopt : std::optional(entry->Info());
}

absl::StatusOr<AdapterImagePtr> AdapterCatalog::LoadImage(const AdapterVersion& version,
                                                          const ImageWriter& write) const {
  StoredVersion stored;
  stored.id = version.name;
  stored.version = version.version;
  stored.config.sha256 = version.config_sha256;
  stored.weights.sha256 = version.sha256;
  LORAD_RETURN_IF_ERROR(Verify(stored, version.activity.get()));
  auto image = parts_.images->Load(parts_.store->PathOf(stored), *version.facts, write);
  if (image.ok()) return image;
  return OfAdapter(absl::DataLossError(fmt::format("adapter \"{}\" version {} cannot be loaded: {}",
                                                   version.name, version.version,
                                                   std::string(image.status().message()))),
                   "ADAPTER_CORRUPT", version.name);
}

// Hashes the files unless they are as they were when that was done last.
absl::Status AdapterCatalog::Verify(const StoredVersion& stored, AdapterActivity* activity) const {
  const auto stamp = parts_.store->StampOf(stored);
  if (stamp.ok() && activity->IsVerified(*stamp)) return absl::OkStatus();
  LORAD_RETURN_IF_ERROR(parts_.store->Verify(stored));
  if (stamp.ok()) activity->SetVerified(*stamp);
  return absl::OkStatus();
}

AdapterVersionPtr AdapterCatalog::MakeVersion(const StoredVersion& stored, AdapterFactsPtr facts) {
  auto version = std::make_unique<AdapterVersion>();
  version->id = next_id_++;
  version->name = stored.id;
  version->version = stored.version;
  if (facts != nullptr) {
    version->image_bytes = facts->image_bytes;
    version->pages = facts->pages;
  }
  version->facts = std::move(facts);
  version->sha256 = stored.weights.sha256;
  version->config_sha256 = stored.config.sha256;
  version->file_bytes = stored.bytes();
  version->origin_version = stored.origin_version;
  version->create_time = stored.create_time;
  // The last holder may be the engine's thread, which touches no file.
  return AdapterVersionPtr(
      version.release(), [hooks = hooks_, store = parts_.store](const AdapterVersion* v) {
        if (v->activity->dropped.load()) {
          hooks->later([store, id = v->name, number = v->version] {
            store->Remove(id, number).IgnoreError();  // Open removes what is left
          });
        }
        delete v;
      });
}

AdapterInfo AdapterCatalog::Show(const StoredAdapter& stored, AdapterSettingsPtr settings,
                                 AdapterFactsPtr facts) {
  const Entry* before = directory_.Get(stored.id());
  const std::optional<Entry> old = before == nullptr ? std::nullopt : std::optional(*before);
  const auto version_of = [&](const StoredVersion& v, AdapterFactsPtr known) {
    if (old.has_value() && old->current->version == v.version) return old->current;
    for (size_t i = 0; old.has_value() && i < old->kept.size(); ++i) {
      if (old->kept[i]->version == v.version) return old->kept[i];
    }
    return MakeVersion(v, std::move(known));
  };
  Entry next{.current = version_of(stored.current, std::move(facts)),
             .settings = std::move(settings),
             .revision = stored.revision};
  for (const StoredVersion& kept : stored.kept) {
    next.kept.push_back(version_of(kept, parts_.images->Recall(kept.facts).value_or(nullptr)));
    next.kept.back()->activity->superseded.store(true);
  }
  int count = 0;
  {
    const std::lock_guard lock(mutex_);
    directory_.Put(next);
    count = directory_.size();
  }
  if (old.has_value()) LetGo(*old, &next);
  const bool was_pinned = old.has_value() && old->settings->pinned && old->current == next.current;
  if (next.settings->pinned != was_pinned) {
    hooks_->set_pinned(next.current, next.settings->pinned);
  }
  hooks_->counted(count);
  hooks_->changed(stored.id());
  return next.Info();
}

void AdapterCatalog::LetGo(const Entry& old, const Entry* next) {
  if (next == nullptr || next->current != old.current) {
    if (old.settings->pinned) hooks_->set_pinned(old.current, false);
    old.current->activity->superseded.store(true);
    hooks_->retire(old.current->id);
  }
  const auto drop_unless_kept = [next](const AdapterVersionPtr& version) {
    const bool kept = next != nullptr &&
                      (next->current == version || std::find(next->kept.begin(), next->kept.end(),
                                                             version) != next->kept.end());
    if (!kept) version->activity->dropped.store(true);
  };
  drop_unless_kept(old.current);
  for (const AdapterVersionPtr& version : old.kept) drop_unless_kept(version);
}

}  // namespace lorad
