// Where things lie in a store, and how its small files are replaced. See adapter_store.h for what
// each is.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "memory/disk.h"

namespace lorad {

inline constexpr std::string_view kManifestFile = "manifest.json";
inline constexpr std::string_view kRemovedThroughFile = "removed_through";
inline constexpr std::string_view kSettingsFile = "settings";

// The name of an adapter's directory: its id with '~' for '/'. REQUIRES: the id is valid.
std::string DirectoryName(std::string_view id);
// The id whose directory has this name; "" if there is none.
std::string IdOfDirectory(std::string_view name);

struct StoreLayout {
  std::filesystem::path root;

  std::filesystem::path format() const { return root / "format"; }
  std::filesystem::path lock() const { return root / "lock"; }
  std::filesystem::path blobs() const { return root / "blobs"; }
  std::filesystem::path adapters() const { return root / "adapters"; }
  std::filesystem::path staging() const { return root / "staging"; }
  std::filesystem::path trash() const { return root / "trash"; }
  std::filesystem::path quarantine() const { return root / "quarantine"; }

  std::filesystem::path Blob(std::string_view sha256) const { return blobs() / sha256; }
  std::filesystem::path Adapter(std::string_view id) const {
    return adapters() / DirectoryName(id);
  }
  std::filesystem::path Version(std::string_view id, int64_t version) const {
    return Adapter(id) / std::to_string(version);
  }
  std::filesystem::path RemovedThrough(std::string_view id) const {
    return Adapter(id) / kRemovedThroughFile;
  }
  std::filesystem::path Settings(std::string_view id) const { return Adapter(id) / kSettingsFile; }
};

// Makes `bytes` the content of the file `to`, durably: it has the old content or the new one,
// whatever happens. `scratch`: a free name in staging/. After a failure `replaced` says whether the
// new content is to be seen.
absl::Status ReplaceFile(const Disk& disk, const std::filesystem::path& scratch,
                         const std::filesystem::path& to, std::string_view bytes, bool* replaced);

// What removed_through holds.
std::string RemovedThroughText(int64_t version);

// A name in quarantine/ that begins with `wish` and is free.
absl::StatusOr<std::filesystem::path> QuarantineName(const StoreLayout& layout,
                                                     std::string_view wish);

}  // namespace lorad
