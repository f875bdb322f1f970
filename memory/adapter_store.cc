// What reads a store. Its changes are in adapter_store_changes.cc.
#include "memory/adapter_store.h"

#include <fmt/format.h>

#include <utility>

#include "memory/base/status_macros.h"
#include "memory/store_errors.h"

namespace lorad {

namespace fs = std::filesystem;

AdapterStore::AdapterStore(StoreLayout layout, Options options, UniqueFd lock,
                           RecoveredStore recovered)
    : layout_(std::move(layout)),
      options_(std::move(options)),
      lock_(std::move(lock)),
      disk_(layout_.root, options_.disk_hook),
      recovery_(std::move(recovered.report)),
      index_(std::move(recovered.index)) {}

fs::path AdapterStore::NewName(const fs::path& directory) {
  const std::lock_guard lock(mutex_);
  return directory / std::to_string(++names_);
}

absl::StatusOr<StoredAdapter> AdapterStore::Get(std::string_view id) const {
  const std::lock_guard lock(mutex_);
  const StoredAdapter* adapter = index_.FindAdapter(id);
  if (adapter == nullptr) return AdapterNotFound(id);
  return *adapter;
}

std::vector<StoredAdapter> AdapterStore::List() const {
  const std::lock_guard lock(mutex_);
  std::vector<StoredAdapter> adapters;
  adapters.reserve(static_cast<size_t>(index_.adapters()));
  for (const auto& [id, entry] : index_.entries()) {
    if (entry.adapter) adapters.push_back(*entry.adapter);
  }
  return adapters;
}

std::vector<int64_t> AdapterStore::Lingering(std::string_view id) const {
  const std::lock_guard lock(mutex_);
  std::vector<int64_t> versions;
  if (const StoreEntry* entry = index_.Find(id)) {
    for (const StoredVersion& version : entry->lingering) versions.push_back(version.version);
  }
  return versions;
}

fs::path AdapterStore::PathOf(const StoredVersion& version) const {
  return layout_.Version(version.id, version.version);
}

StoreUsage AdapterStore::OwnerUsage(std::string_view owner) const {
  const std::lock_guard lock(mutex_);
  return index_.OwnerUsage(owner);
}

std::map<std::string, StoreUsage> AdapterStore::UsageByOwner() const {
  const std::lock_guard lock(mutex_);
  return {index_.usage().begin(), index_.usage().end()};
}

int64_t AdapterStore::stored_bytes() const {
  const std::lock_guard lock(mutex_);
  return index_.bytes();
}

absl::StatusOr<std::string> AdapterStore::HashOf(const fs::path& path) const {
  constexpr size_t kBlockBytes = 64 << 10;
  LORAD_ASSIGN_OR_RETURN(const UniqueFd fd, disk_.Open(path));
  Sha256 hash;
  std::string block;
  do {
    LORAD_RETURN_IF_ERROR(disk_.Read(fd, path, kBlockBytes, &block));
    hash.Update(block);
  } while (block.size() == kBlockBytes);
  return hash.Finish();
}

absl::StatusOr<AdapterStore::Stamp> AdapterStore::StampOf(const StoredVersion& version) const {
  LORAD_ASSIGN_OR_RETURN(const FileInfo config, disk_.Stat(PathOf(version) / kAdapterConfigFile));
  LORAD_ASSIGN_OR_RETURN(const FileInfo weights, disk_.Stat(PathOf(version) / kAdapterWeightsFile));
  return Stamp{config, weights};
}

absl::Status AdapterStore::Verify(const StoredVersion& version) const {
  for (const auto& [name, file] : {std::pair(kAdapterConfigFile, &version.config),
                                   std::pair(kAdapterWeightsFile, &version.weights)}) {
    const absl::StatusOr<std::string> sha256 = HashOf(PathOf(version) / name);
    if (absl::IsNotFound(sha256.status()) || absl::IsDataLoss(sha256.status())) {
      return AdapterCorrupt(version, std::string(sha256.status().message()));
    }
    LORAD_RETURN_IF_ERROR(sha256.status());
    if (*sha256 != file->sha256) {
      return AdapterCorrupt(version, fmt::format("{} is not what was stored", name));
    }
  }
  return absl::OkStatus();
}

}  // namespace lorad
