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

absl::Status AdapterStore::Verify(const StoredVersion& version) const {
  constexpr size_t kBlockBytes = 64 << 10;
  for (const auto& [name, file] : {std::pair(kAdapterConfigFile, &version.config),
                                   std::pair(kAdapterWeightsFile, &version.weights)}) {
    const fs::path path = PathOf(version) / name;
    const absl::StatusOr<UniqueFd> fd = disk_.Open(path);
    if (absl::IsNotFound(fd.status()) || absl::IsDataLoss(fd.status())) {
      return AdapterCorrupt(version, std::string(fd.status().message()));
    }
    LORAD_RETURN_IF_ERROR(fd.status());
    Sha256 hash;
    std::string block;
    do {
      LORAD_RETURN_IF_ERROR(disk_.Read(*fd, path, kBlockBytes, &block));
      hash.Update(block);
    } while (block.size() == kBlockBytes);
    if (hash.Finish() != file->sha256) {
      return AdapterCorrupt(version, fmt::format("{} is not what was stored", name));
    }
  }
  return absl::OkStatus();
}

}  // namespace lorad
