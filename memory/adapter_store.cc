#include "memory/adapter_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "memory/base/check.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"

namespace lorad {
namespace {

namespace fs = std::filesystem;

absl::Status AdapterNotFound(std::string_view id) {
  if (!ValidateAdapterId(id).ok()) {  // not repeated: it may hold anything
    return WithReason(absl::NotFoundError("there is no such adapter"), "ADAPTER_NOT_FOUND");
  }
  return WithResource(WithReason(absl::NotFoundError(fmt::format("there is no adapter {}", id)),
                                 "ADAPTER_NOT_FOUND"),
                      "lorad.dev/Adapter", fmt::format("adapters/{}", id));
}

absl::Status Corrupt(const StoredVersion& version, std::string_view problem) {
  return WithResource(
      WithReason(absl::DataLossError(fmt::format("adapter {} version {} is damaged: {}", version.id,
                                                 version.version, problem)),
                 "ADAPTER_CORRUPT"),
      "lorad.dev/Adapter", fmt::format("adapters/{}", version.id));
}

}  // namespace

AdapterStore::AdapterStore(StoreLayout layout, Options options, UniqueFd lock,
                           RecoveredStore recovered)
    : layout_(std::move(layout)),
      options_(std::move(options)),
      lock_(std::move(lock)),
      disk_(layout_.root, options_.disk_hook),
      recovery_(std::move(recovered.report)),
      entries_(std::move(recovered.entries)) {
  for (const auto& [id, entry] : entries_) {
    if (entry.current) stored_bytes_ += entry.current->bytes();
  }
}

fs::path AdapterStore::NewName(const fs::path& directory) {
  const std::lock_guard lock(mutex_);
  return directory / std::to_string(++names_);
}

absl::StatusOr<StoredVersion> AdapterStore::Commit(StagedAdapter staged, std::string_view id,
                                                   IfExists if_exists) {
  LORAD_CHECK(staged.store_ == this);
  LORAD_RETURN_IF_ERROR(ValidateAdapterId(id));
  LORAD_RETURN_IF_ERROR(staged.CheckComplete());
  LORAD_RETURN_IF_ERROR(staged.Sync());  // the long part; others may write meanwhile

  const std::lock_guard write_lock(write_mutex_);
  StoredVersion version{.id = std::string(id),
                        .version = 1,
                        .path = {},
                        .config = staged.Take(kAdapterConfigFile),
                        .weights = staged.Take(kAdapterWeightsFile),
                        .create_time = std::chrono::system_clock::now()};
  bool first = true;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = entries_.find(id); found != entries_.end()) {
      first = !found->second.current;
      version.version = found->second.last_version + 1;
    }
  }
  if (!first && if_exists == IfExists::kRefuse) {
    return WithResource(WithReason(absl::AlreadyExistsError(fmt::format("adapter {} exists", id)),
                                   "ADAPTER_EXISTS"),
                        "lorad.dev/Adapter", fmt::format("adapters/{}", id));
  }
  version.path = layout_.Version(id, version.version);
  LORAD_RETURN_IF_ERROR(Publish(staged, version, first));

  const std::lock_guard lock(mutex_);
  StoreEntry& entry = entries_[version.id];
  if (entry.current) entry.lingering[entry.current->version] = entry.current->bytes();
  entry.last_version = version.version;
  entry.current = version;
  stored_bytes_ += version.bytes();
  staged_bytes_ -= staged.declared_bytes();
  staged.store_ = nullptr;
  return version;
}

absl::Status AdapterStore::Publish(const StagedAdapter& staged, const StoredVersion& version,
                                   bool first) {
  LORAD_RETURN_IF_ERROR(disk_.WriteFile(staged.path_ / kManifestFile, ToManifest(version)));
  LORAD_RETURN_IF_ERROR(disk_.SyncDirectory(staged.path_));
  LORAD_RETURN_IF_ERROR(disk_.EnsureDirectory(layout_.Adapter(version.id)));
  LORAD_RETURN_IF_ERROR(disk_.Rename(staged.path_, version.path));
  absl::Status status = disk_.SyncDirectory(layout_.Adapter(version.id));
  if (status.ok() && first) status = disk_.SyncDirectory(layout_.adapters());
  if (status.ok()) return status;
  // Visible, but nobody knows for how long: take it back. Its number is spent even so.
  const bool undone = disk_.Rename(version.path, staged.path_).ok();
  const std::lock_guard lock(mutex_);
  StoreEntry& entry = entries_[version.id];
  entry.last_version = version.version;
  if (!undone) {
    entry.lingering[version.version] = version.bytes();
    stored_bytes_ += version.bytes();
  }
  return status;
}

absl::Status AdapterStore::DeleteLocked(std::string_view id) {
  int64_t last_version = 0;
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end() || !found->second.current) return AdapterNotFound(id);
    last_version = found->second.last_version;
  }
  LORAD_RETURN_IF_ERROR(
      WriteRemovedThrough(disk_, layout_, id, last_version, NewName(layout_.staging())));
  const std::lock_guard lock(mutex_);
  StoreEntry& entry = entries_.find(id)->second;
  entry.lingering[entry.current->version] = entry.current->bytes();
  entry.current.reset();
  return absl::OkStatus();
}

absl::Status AdapterStore::MoveAway(std::string_view id, int64_t version, const fs::path& to) {
  bool is_current = false;
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end()) return AdapterNotFound(id);
    const StoreEntry& entry = found->second;
    is_current = entry.current && entry.current->version == version;
    if (!is_current && !entry.lingering.contains(version)) return AdapterNotFound(id);
  }
  if (is_current) LORAD_RETURN_IF_ERROR(DeleteLocked(id));
  // Not synced: if it comes back after a power cut, Open knows that it is not current.
  LORAD_RETURN_IF_ERROR(disk_.Rename(layout_.Version(id, version), to));
  const std::lock_guard lock(mutex_);
  const auto lingering = entries_.find(id)->second.lingering.extract(version);
  stored_bytes_ -= lingering.mapped();
  return absl::OkStatus();
}

absl::Status AdapterStore::Delete(std::string_view id) {
  const std::lock_guard write_lock(write_mutex_);
  return DeleteLocked(id);
}

absl::Status AdapterStore::Remove(std::string_view id, int64_t version) {
  const fs::path trash = NewName(layout_.trash());
  {
    const std::lock_guard write_lock(write_mutex_);
    LORAD_RETURN_IF_ERROR(MoveAway(id, version, trash));
  }
  return disk_.RemoveTree(trash);  // large files take a while: nobody waits for it
}

absl::Status AdapterStore::RemoveAll(std::string_view id) {
  if (absl::Status status = Delete(id); !status.ok() && !absl::IsNotFound(status)) return status;
  std::vector<int64_t> versions;
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end() || found->second.lingering.empty()) return AdapterNotFound(id);
    for (const auto& [version, bytes] : found->second.lingering) versions.push_back(version);
  }
  for (const int64_t version : versions) LORAD_RETURN_IF_ERROR(Remove(id, version));
  return absl::OkStatus();
}

absl::Status AdapterStore::Quarantine(std::string_view id, int64_t version) {
  const std::lock_guard write_lock(write_mutex_);
  if (!ValidateAdapterId(id).ok()) return AdapterNotFound(id);
  LORAD_ASSIGN_OR_RETURN(const fs::path to,
                         QuarantineName(layout_, fmt::format("{}.{}", id, version)));
  return MoveAway(id, version, to);
}

absl::StatusOr<StoredVersion> AdapterStore::Latest(std::string_view id) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end() || !found->second.current) return AdapterNotFound(id);
  return *found->second.current;
}

std::vector<StoredVersion> AdapterStore::List() const {
  const std::lock_guard lock(mutex_);
  std::vector<StoredVersion> versions;
  for (const auto& [id, entry] : entries_) {
    if (entry.current) versions.push_back(*entry.current);
  }
  return versions;
}

int64_t AdapterStore::stored_bytes() const {
  const std::lock_guard lock(mutex_);
  return stored_bytes_;
}

absl::Status AdapterStore::Verify(const StoredVersion& version) const {
  constexpr size_t kBlockBytes = 1 << 20;
  for (const auto& [name, file] : {std::pair(kAdapterConfigFile, &version.config),
                                   std::pair(kAdapterWeightsFile, &version.weights)}) {
    const fs::path path = version.path / name;
    const absl::StatusOr<UniqueFd> fd = disk_.Open(path);
    if (absl::IsNotFound(fd.status()) || absl::IsDataLoss(fd.status())) {
      return Corrupt(version, std::string(fd.status().message()));
    }
    LORAD_RETURN_IF_ERROR(fd.status());
    Sha256 hash;
    std::string block;
    do {
      LORAD_RETURN_IF_ERROR(disk_.Read(*fd, path, kBlockBytes, &block));
      hash.Update(block);
    } while (block.size() == kBlockBytes);
    if (hash.Finish() != file->sha256) {
      return Corrupt(version, fmt::format("{} is not what was stored", name));
    }
  }
  return absl::OkStatus();
}

}  // namespace lorad
