// What changes an adapter that is there: its settings, and how it and its versions go.
#include <fmt/format.h>

#include <utility>

#include "memory/adapter_store.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "memory/store_errors.h"
#include "memory/store_manifest.h"

namespace lorad {

namespace fs = std::filesystem;

absl::StatusOr<StoredAdapter> AdapterStore::UpdateSettings(
    std::string_view id, std::string settings, const std::optional<Expected>& expected) {
  LORAD_RETURN_IF_ERROR(CheckText(settings, kMaxSettingsBytes, "settings"));
  const std::lock_guard write_lock(write_mutex_);
  LORAD_RETURN_IF_ERROR(CheckChange(id, expected));
  LORAD_RETURN_IF_ERROR(Settle(id));
  SettingsRecord record{.version = 0, .revision = 0, .settings = std::move(settings)};
  {
    const std::lock_guard lock(mutex_);
    const StoredAdapter* adapter = index_.FindAdapter(id);
    record.version = adapter->current.version;
    record.revision = adapter->revision + 1;
  }
  LORAD_RETURN_IF_ERROR(CheckNumber(id, record.revision));
  LORAD_RETURN_IF_ERROR(Replace(id, layout_.Settings(id), ToSettingsFile(record)));
  const std::lock_guard lock(mutex_);
  index_.SetSettings(id, std::move(record.settings), record.revision);
  return *index_.FindAdapter(id);
}

absl::Status AdapterStore::CheckChange(std::string_view id,
                                       const std::optional<Expected>& expected) const {
  const std::lock_guard lock(mutex_);
  const StoredAdapter* adapter = index_.FindAdapter(id);
  if (expected && ValidateAdapterId(id).ok()) return CheckExpected(id, adapter, *expected);
  return adapter == nullptr ? AdapterNotFound(id) : absl::OkStatus();
}

absl::Status AdapterStore::Delete(std::string_view id, const std::optional<Expected>& expected) {
  const std::lock_guard write_lock(write_mutex_);
  return DeleteLocked(id, expected);
}

absl::Status AdapterStore::DeleteLocked(std::string_view id,
                                        const std::optional<Expected>& expected) {
  LORAD_RETURN_IF_ERROR(CheckChange(id, expected));
  LORAD_RETURN_IF_ERROR(Settle(id));
  int64_t last_version = 0;
  {
    const std::lock_guard lock(mutex_);
    last_version = index_.Find(id)->last_version;
  }
  LORAD_RETURN_IF_ERROR(Replace(id, layout_.RemovedThrough(id), RemovedThroughText(last_version)));
  disk_.RemoveTree(layout_.Settings(id)).IgnoreError();  // they count for nothing any more
  const std::lock_guard lock(mutex_);
  index_.Delete(id);
  return absl::OkStatus();
}

absl::Status AdapterStore::Remove(std::string_view id, int64_t version) {
  const fs::path trash = NewName(layout_.trash());
  absl::Status status;
  {
    const std::lock_guard write_lock(write_mutex_);
    LORAD_ASSIGN_OR_RETURN(const StoredVersion found, FindVersion(id, version));
    if (IsKept(id, version)) {
      return OfAdapter(absl::FailedPreconditionError(
                           fmt::format("version {} of adapter {} is kept", version, id)),
                       "VERSION_KEPT", id);
    }
    LORAD_RETURN_IF_ERROR(MoveAway(found, trash));
    status = RemoveUnusedBlobs(found);
  }
  const absl::Status removed = disk_.RemoveTree(trash);  // large files take a while: nobody waits
  return status.ok() ? removed : status;
}

absl::Status AdapterStore::RemoveAll(std::string_view id) {
  const absl::Status deleted = Delete(id);
  if (!deleted.ok() && !absl::IsNotFound(deleted)) return deleted;
  const std::vector<int64_t> versions = Lingering(id);
  if (versions.empty()) return deleted;
  for (const int64_t version : versions) {
    const absl::Status status = Remove(id, version);
    if (!status.ok() && !absl::IsNotFound(status)) return status;  // somebody else was quicker
  }
  return absl::OkStatus();
}

absl::Status AdapterStore::Quarantine(std::string_view id, int64_t version) {
  const std::lock_guard write_lock(write_mutex_);
  LORAD_ASSIGN_OR_RETURN(const StoredVersion found, FindVersion(id, version));
  const absl::StatusOr<StoredAdapter> adapter = Get(id);
  if (adapter.ok() && adapter->current.version == version) {
    LORAD_RETURN_IF_ERROR(DeleteLocked(id, std::nullopt));
  }
  LORAD_ASSIGN_OR_RETURN(const fs::path to,
                         QuarantineName(layout_, fmt::format("{}.{}", DirectoryName(id), version)));
  // The names in blobs/ first, and durably: later an upload could get the damaged bytes again.
  LORAD_RETURN_IF_ERROR(RemoveBlob(found.config));
  LORAD_RETURN_IF_ERROR(RemoveBlob(found.weights));
  LORAD_RETURN_IF_ERROR(disk_.SyncDirectory(layout_.blobs()));
  LORAD_RETURN_IF_ERROR(MoveAway(found, to));
  return disk_.SyncDirectory(layout_.Adapter(id));
}

absl::StatusOr<StoredVersion> AdapterStore::FindVersion(std::string_view id,
                                                        int64_t version) const {
  const std::lock_guard lock(mutex_);
  if (index_.Find(id) == nullptr) return AdapterNotFound(id);
  const StoredVersion* found = index_.FindVersion(id, version);
  if (found == nullptr) return VersionNotFound(id, version);
  return *found;
}

bool AdapterStore::IsKept(std::string_view id, int64_t version) const {
  const std::lock_guard lock(mutex_);
  return index_.Keeps(id, version);
}

// Not synced: if it comes back after a power cut, Open finds it again as what it was.
absl::Status AdapterStore::MoveAway(const StoredVersion& version, const fs::path& to) {
  LORAD_RETURN_IF_ERROR(disk_.Rename(PathOf(version), to));
  const std::lock_guard lock(mutex_);
  index_.Drop(version.id, version.version);
  return absl::OkStatus();
}

absl::Status AdapterStore::Replace(std::string_view id, const fs::path& to,
                                   std::string_view bytes) {
  bool replaced = false;
  const absl::Status status = ReplaceFile(disk_, NewName(layout_.staging()), to, bytes, &replaced);
  if (status.ok() || !replaced) return status;
  // Visible, but nobody knows for how long: take it back.
  {
    const std::lock_guard lock(mutex_);
    index_.SetUnsettled(id, true);
  }
  Settle(id).IgnoreError();  // the next change tries again
  return status;
}

absl::Status AdapterStore::Settle(std::string_view id) {
  int64_t removed_through = 0;
  std::optional<SettingsRecord> settings;
  std::vector<StoredVersion> strays;
  {
    const std::lock_guard lock(mutex_);
    const StoreEntry* entry = index_.Find(id);
    if (entry == nullptr || !entry->unsettled) return absl::OkStatus();
    removed_through = entry->removed_through;
    int64_t newest = removed_through;
    if (entry->adapter) {
      newest = entry->adapter->current.version;
      settings = {.version = newest,
                  .revision = entry->adapter->revision,
                  .settings = entry->adapter->settings};
    }
    for (const StoredVersion& version : entry->lingering) {
      if (version.version > newest) strays.push_back(version);
    }
  }
  for (const StoredVersion& stray : strays) {
    const fs::path trash = NewName(layout_.trash());
    LORAD_RETURN_IF_ERROR(MoveAway(stray, trash));
    LORAD_RETURN_IF_ERROR(RemoveUnusedBlobs(stray));
    disk_.RemoveTree(trash).IgnoreError();  // if it fails, Open will do it
  }
  bool replaced = false;
  if (removed_through == 0) {
    LORAD_RETURN_IF_ERROR(disk_.RemoveTree(layout_.RemovedThrough(id)));
  } else {
    LORAD_RETURN_IF_ERROR(ReplaceFile(disk_, NewName(layout_.staging()), layout_.RemovedThrough(id),
                                      RemovedThroughText(removed_through), &replaced));
  }
  if (settings) {
    LORAD_RETURN_IF_ERROR(ReplaceFile(disk_, NewName(layout_.staging()), layout_.Settings(id),
                                      ToSettingsFile(*settings), &replaced));
  }
  LORAD_RETURN_IF_ERROR(disk_.SyncDirectory(layout_.Adapter(id)));
  const std::lock_guard lock(mutex_);
  index_.SetUnsettled(id, false);
  return absl::OkStatus();
}

}  // namespace lorad
