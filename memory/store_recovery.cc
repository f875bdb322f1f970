#include "memory/store_recovery.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "memory/base/status_macros.h"
#include "memory/sha256.h"
#include "memory/store_manifest.h"

namespace lorad {
namespace {

namespace fs = std::filesystem;

bool Exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

bool IsDirectory(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(fs::symlink_status(path, error));
}

bool IsDamage(const absl::Status& status) {
  return absl::IsDataLoss(status) || absl::IsNotFound(status);
}

class Recoverer {
 public:
  Recoverer(const Disk& disk, const StoreLayout& layout, int keep_versions)
      : disk_(disk),
        layout_(layout),
        keep_versions_(static_cast<size_t>(keep_versions)),
        store_{.index = StoreIndex(keep_versions), .report = {}} {}

  absl::StatusOr<RecoveredStore> Run() {
    for (const fs::path& directory : {layout_.blobs(), layout_.adapters(), layout_.staging(),
                                      layout_.trash(), layout_.quarantine()}) {
      LORAD_RETURN_IF_ERROR(disk_.EnsureDirectory(directory));
    }
    LORAD_RETURN_IF_ERROR(EmptyStaging());
    LORAD_RETURN_IF_ERROR(Empty(layout_.trash()));
    LORAD_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                           disk_.ListDirectory(layout_.adapters()));
    for (const std::string& name : names) {
      const std::string id = IdOfDirectory(name);
      if (id.empty() || !IsDirectory(layout_.adapters() / name)) {
        LORAD_RETURN_IF_ERROR(
            MoveToQuarantine(layout_.adapters() / name, "unknown", "is no adapter's directory"));
      } else {
        LORAD_RETURN_IF_ERROR(RecoverAdapter(id));
      }
    }
    LORAD_RETURN_IF_ERROR(RecoverBlobs());
    // What the process before us renamed but did not come to sync is served from now on.
    LORAD_RETURN_IF_ERROR(disk_.SyncFileSystem(layout_.root));
    return std::move(store_);
  }

 private:
  // What lies in an adapter's directory.
  struct Found {
    int64_t removed_through = 0;
    bool has_settings = false;
    std::vector<int64_t> versions;  // ascending
    int64_t last_version() const {
      return std::max(removed_through, versions.empty() ? 0 : versions.back());
    }
  };

  absl::Status EmptyStaging() {
    LORAD_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                           disk_.ListDirectory(layout_.staging()));
    for (const std::string& name : names) {
      if (IsDirectory(layout_.staging() / name)) ++store_.report.unfinished;
    }
    return Empty(layout_.staging());
  }

  absl::Status Empty(const fs::path& directory) {
    LORAD_ASSIGN_OR_RETURN(const std::vector<std::string> names, disk_.ListDirectory(directory));
    for (const std::string& name : names) LORAD_RETURN_IF_ERROR(disk_.RemoveTree(directory / name));
    return absl::OkStatus();
  }

  absl::Status MoveToQuarantine(const fs::path& path, std::string_view wish,
                                std::string_view reason) {
    LORAD_ASSIGN_OR_RETURN(const fs::path to, QuarantineName(layout_, wish));
    LORAD_RETURN_IF_ERROR(disk_.Rename(path, to));
    store_.report.quarantined.push_back(
        fmt::format("quarantine/{}: {}", to.filename().string(), reason));
    return absl::OkStatus();
  }

  absl::Status MoveVersionToQuarantine(const std::string& id, int64_t version,
                                       const absl::Status& reason) {
    return MoveToQuarantine(layout_.Version(id, version),
                            fmt::format("{}.{}", DirectoryName(id), version),
                            std::string(reason.message()));
  }

  absl::StatusOr<Found> Scan(const std::string& id) {
    Found found;
    LORAD_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                           disk_.ListDirectory(layout_.Adapter(id)));
    for (const std::string& name : names) {
      const fs::path path = layout_.Adapter(id) / name;
      if (name == kRemovedThroughFile) {
        LORAD_ASSIGN_OR_RETURN(std::string text, disk_.ReadFile(path, 32));
        if (!text.empty() && text.back() == '\n') text.pop_back();
        found.removed_through = ParseVersionNumber(text);
        if (found.removed_through == 0) {
          return absl::DataLossError("removed_through does not hold a number");
        }
      } else if (name == kSettingsFile) {
        found.has_settings = true;
      } else if (const int64_t version = ParseVersionNumber(name);
                 version > 0 && IsDirectory(path)) {
        found.versions.push_back(version);
      } else {
        LORAD_RETURN_IF_ERROR(
            MoveToQuarantine(path, DirectoryName(id) + ".unknown", "is no version of the adapter"));
      }
    }
    std::sort(found.versions.begin(), found.versions.end());
    return found;
  }

  bool HasManifest(const std::string& id, int64_t version) const {
    return Exists(layout_.Version(id, version) / kManifestFile);
  }

  // A version as its manifest and its files' sizes tell it; DataLoss or NotFound if they disagree.
  absl::StatusOr<Manifest> Inspect(const std::string& id, int64_t version) {
    const fs::path path = layout_.Version(id, version);
    LORAD_ASSIGN_OR_RETURN(const std::string text,
                           disk_.ReadFile(path / kManifestFile, kMaxManifestBytes));
    LORAD_ASSIGN_OR_RETURN(Manifest manifest, ParseManifest(text, id, version));
    for (const auto& [name, file] : {std::pair(kAdapterConfigFile, &manifest.version.config),
                                     std::pair(kAdapterWeightsFile, &manifest.version.weights)}) {
      LORAD_ASSIGN_OR_RETURN(const FileInfo info, disk_.Stat(path / name));
      if (info.bytes != file->bytes) {
        return absl::DataLossError(
            fmt::format("{} has {} bytes, not {}", name, info.bytes, file->bytes));
      }
      file->inode = info.inode;
    }
    return manifest;
  }

  absl::Status RecoverAdapter(const std::string& id) {
    absl::StatusOr<Found> scanned = Scan(id);
    if (absl::IsDataLoss(scanned.status())) {
      return MoveToQuarantine(layout_.Adapter(id), DirectoryName(id),
                              std::string(scanned.status().message()));
    }
    LORAD_RETURN_IF_ERROR(scanned.status());
    const Found& found = *scanned;
    StoreEntry entry{.last_version = found.last_version(),
                     .removed_through = found.removed_through,
                     .unsettled = false,
                     .adapter = {},
                     .lingering = {}};
    LORAD_RETURN_IF_ERROR(RecoverVersions(id, found, &entry));
    LORAD_RETURN_IF_ERROR(RecoverSettings(id, found, &entry));
    LORAD_RETURN_IF_ERROR(DeleteOthers(id, found, entry));
    if (!entry.adapter && entry.removed_through == 0) {
      return disk_.RemoveTree(layout_.Adapter(id));  // a Commit that got no further
    }
    store_.index.Recover(id, std::move(entry));
    return absl::OkStatus();
  }

  absl::Status RecoverVersions(const std::string& id, const Found& found, StoreEntry* entry) {
    const auto newest = std::find_if(found.versions.rbegin(), found.versions.rend(),
                                     [&](int64_t version) { return HasManifest(id, version); });
    if (newest == found.versions.rend() || *newest <= found.removed_through) {
      return absl::OkStatus();
    }
    absl::StatusOr<Manifest> current = Inspect(id, *newest);
    if (IsDamage(current.status())) {
      LORAD_RETURN_IF_ERROR(QuarantineAll(id, found, *newest, current.status()));
      entry->removed_through = found.last_version();
      return absl::OkStatus();
    }
    LORAD_RETURN_IF_ERROR(current.status());
    entry->adapter = {.current = std::move(current->version),
                      .kept = {},
                      .settings = std::move(current->settings),
                      .revision = current->revision};
    std::vector<StoredVersion>* kept = &entry->adapter->kept;
    for (auto at = newest + 1; at != found.versions.rend() && *at > found.removed_through; ++at) {
      if (kept->size() == keep_versions_) break;
      if (!HasManifest(id, *at)) continue;
      absl::StatusOr<Manifest> manifest = Inspect(id, *at);
      if (IsDamage(manifest.status())) {
        LORAD_RETURN_IF_ERROR(MoveVersionToQuarantine(id, *at, manifest.status()));
        continue;
      }
      LORAD_RETURN_IF_ERROR(manifest.status());
      kept->push_back(std::move(manifest->version));
    }
    kept->shrink_to_fit();
    return absl::OkStatus();
  }

  // The current version, `newest`, is damaged. All go, so that none before it comes back: it goes
  // last, when its number is safe, so that we come here again if we do not get so far.
  absl::Status QuarantineAll(const std::string& id, const Found& found, int64_t newest,
                             const absl::Status& reason) {
    for (const int64_t version : found.versions) {
      if (version == newest) continue;
      LORAD_RETURN_IF_ERROR(MoveVersionToQuarantine(id, version, reason));
    }
    if (found.has_settings) {
      LORAD_RETURN_IF_ERROR(MoveToQuarantine(layout_.Settings(id), DirectoryName(id) + ".settings",
                                             std::string(reason.message())));
    }
    bool replaced = false;
    LORAD_RETURN_IF_ERROR(ReplaceFile(disk_, layout_.staging() / "recovery",
                                      layout_.RemovedThrough(id),
                                      RemovedThroughText(found.last_version()), &replaced));
    return MoveVersionToQuarantine(id, newest, reason);
  }

  absl::Status RecoverSettings(const std::string& id, const Found& found, StoreEntry* entry) {
    if (!found.has_settings) return absl::OkStatus();
    const fs::path path = layout_.Settings(id);
    if (!entry->adapter) return disk_.RemoveTree(path);  // of an adapter that was deleted
    absl::StatusOr<SettingsRecord> record = ReadSettings(path);
    if (record.ok() && record->version > entry->adapter->current.version) {
      record = absl::DataLossError("settings of a version that is not there");
    }
    if (IsDamage(record.status())) {
      return MoveToQuarantine(path, DirectoryName(id) + ".settings",
                              std::string(record.status().message()));
    }
    LORAD_RETURN_IF_ERROR(record.status());
    if (record->version <= entry->removed_through) return disk_.RemoveTree(path);
    if (record->revision > entry->adapter->revision) {
      entry->adapter->settings = std::move(record->settings);
      entry->adapter->revision = record->revision;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<SettingsRecord> ReadSettings(const fs::path& path) {
    LORAD_ASSIGN_OR_RETURN(const std::string text, disk_.ReadFile(path, kMaxManifestBytes));
    return ParseSettingsFile(text);
  }

  absl::Status DeleteOthers(const std::string& id, const Found& found, const StoreEntry& entry) {
    const auto stays = [&](int64_t version) {
      if (!entry.adapter) return false;
      const std::vector<StoredVersion>& kept = entry.adapter->kept;
      return entry.adapter->current.version == version ||
             std::any_of(kept.begin(), kept.end(),
                         [&](const StoredVersion& v) { return v.version == version; });
    };
    for (const int64_t version : found.versions) {
      const fs::path path = layout_.Version(id, version);
      if (stays(version) || !Exists(path)) continue;
      const bool finished = HasManifest(id, version);
      if (finished) {
        const absl::Status status = Inspect(id, version).status();
        if (IsDamage(status)) {  // it may be what QuarantineAll did not come to
          LORAD_RETURN_IF_ERROR(MoveVersionToQuarantine(id, version, status));
          continue;
        }
        LORAD_RETURN_IF_ERROR(status);
      }
      ++(finished ? store_.report.superseded : store_.report.unfinished);
      LORAD_RETURN_IF_ERROR(disk_.RemoveTree(path));
    }
    return absl::OkStatus();
  }

  // A blob stays if it is a file of a version, which says that the file has the blob's hash. What
  // is left of a version that went, to the trash or to quarantine, is nothing to link to.
  absl::Status RecoverBlobs() {
    absl::flat_hash_map<uint64_t, std::string_view> hashes;  // by inode
    for (const auto& [id, entry] : store_.index.entries()) {
      if (!entry.adapter) continue;
      const auto add = [&](const StoredVersion& version) {
        hashes.emplace(version.config.inode, version.config.sha256);
        hashes.emplace(version.weights.inode, version.weights.sha256);
      };
      add(entry.adapter->current);
      for (const StoredVersion& version : entry.adapter->kept) add(version);
    }
    LORAD_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                           disk_.ListDirectory(layout_.blobs()));
    for (const std::string& name : names) {
      const fs::path path = layout_.Blob(name);
      const absl::StatusOr<FileInfo> info = disk_.Stat(path);
      if (absl::IsDataLoss(info.status()) || !IsSha256(name)) {
        LORAD_RETURN_IF_ERROR(MoveToQuarantine(path, "blob.unknown", "is no file of an adapter"));
        continue;
      }
      LORAD_RETURN_IF_ERROR(info.status());
      const auto found = hashes.find(info->inode);
      if (found != hashes.end() && found->second == name) continue;
      ++store_.report.unused_blobs;
      LORAD_RETURN_IF_ERROR(disk_.RemoveTree(path));
    }
    return absl::OkStatus();
  }

  const Disk& disk_;
  const StoreLayout& layout_;
  const size_t keep_versions_;
  RecoveredStore store_;
};

}  // namespace

absl::StatusOr<RecoveredStore> RecoverStore(const Disk& disk, const StoreLayout& layout,
                                            int keep_versions) {
  return Recoverer(disk, layout, keep_versions).Run();
}

}  // namespace lorad
