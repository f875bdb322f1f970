// The store's layout on disk, and how Open brings it to order after a crash. See adapter_store.h
// for the rules. REQUIRES of all: the caller holds the store's lock.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "memory/disk.h"
#include "memory/stored_version.h"

namespace lorad {

struct StoreLayout {
  std::filesystem::path root;

  std::filesystem::path format() const { return root / "format"; }
  std::filesystem::path lock() const { return root / "lock"; }
  std::filesystem::path adapters() const { return root / "adapters"; }
  std::filesystem::path staging() const { return root / "staging"; }
  std::filesystem::path trash() const { return root / "trash"; }
  std::filesystem::path quarantine() const { return root / "quarantine"; }
  std::filesystem::path Adapter(std::string_view id) const { return adapters() / id; }
  std::filesystem::path Version(std::string_view id, int64_t version) const {
    return Adapter(id) / std::to_string(version);
  }
};
inline constexpr std::string_view kManifestFile = "manifest.json";
inline constexpr std::string_view kRemovedThroughFile = "removed_through";

// What the store knows of one id. It stays when the adapter is deleted, for its number.
struct StoreEntry {
  int64_t last_version = 0;              // the greatest number ever used
  std::optional<StoredVersion> current;  // none: deleted
  std::map<int64_t, int64_t> lingering;  // version -> bytes: replaced or deleted, files still there
};
using StoreEntries = std::map<std::string, StoreEntry, std::less<>>;

struct RecoveryReport {
  int unfinished = 0;  // staged adapters and versions without a manifest, deleted
  int superseded = 0;  // versions that were replaced or deleted before, deleted
  std::vector<std::string>
      quarantined;  // one line for each thing that was moved to quarantine/: what and why
};

struct RecoveredStore {
  StoreEntries entries;
  RecoveryReport report;
};

absl::StatusOr<RecoveredStore> RecoverStore(const Disk& disk, const StoreLayout& layout);

// Records durably that all versions of `id` through `version` are deleted. `scratch`: a free name
// in staging/.
absl::Status WriteRemovedThrough(const Disk& disk, const StoreLayout& layout, std::string_view id,
                                 int64_t version, const std::filesystem::path& scratch);

// A name in quarantine/ that begins with `wish` and is free.
absl::StatusOr<std::filesystem::path> QuarantineName(const StoreLayout& layout,
                                                     std::string_view wish);

}  // namespace lorad
