#include "memory/store_recovery.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"

namespace lorad {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxManifestBytes = 64 << 10;

bool Exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

bool IsDirectory(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(fs::symlink_status(path, error));
}

class Recoverer {
 public:
  Recoverer(const Disk& disk, const StoreLayout& layout) : disk_(disk), layout_(layout) {}

  absl::StatusOr<RecoveredStore> Run() {
    for (const fs::path& directory :
         {layout_.adapters(), layout_.staging(), layout_.trash(), layout_.quarantine()}) {
      LORAD_RETURN_IF_ERROR(disk_.EnsureDirectory(directory));
    }
    LORAD_RETURN_IF_ERROR(EmptyStaging());
    LORAD_RETURN_IF_ERROR(Empty(layout_.trash()));
    LORAD_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                           disk_.ListDirectory(layout_.adapters()));
    for (const std::string& name : names) {
      if (!ValidateAdapterId(name).ok() || !IsDirectory(layout_.adapters() / name)) {
        LORAD_RETURN_IF_ERROR(
            MoveToQuarantine(layout_.adapters() / name, "unknown", "is no adapter's directory"));
      } else {
        LORAD_RETURN_IF_ERROR(RecoverAdapter(name));
      }
    }
    // What the process before us renamed but did not come to sync is served from now on.
    LORAD_RETURN_IF_ERROR(disk_.SyncFileSystem(layout_.root));
    return std::move(store_);
  }

 private:
  // What lies in adapters/ID/.
  struct Found {
    int64_t removed_through = 0;
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
      } else if (const int64_t version = ParseVersionNumber(name);
                 version > 0 && IsDirectory(path)) {
        found.versions.push_back(version);
      } else {
        LORAD_RETURN_IF_ERROR(
            MoveToQuarantine(path, id + ".unknown", "is no version of the adapter"));
      }
    }
    std::sort(found.versions.begin(), found.versions.end());
    return found;
  }

  // A version as its manifest and its files' sizes tell it; DataLoss if they disagree.
  absl::StatusOr<StoredVersion> Inspect(const std::string& id, int64_t version) {
    const fs::path path = layout_.Version(id, version);
    LORAD_ASSIGN_OR_RETURN(const std::string text,
                           disk_.ReadFile(path / kManifestFile, kMaxManifestBytes));
    LORAD_ASSIGN_OR_RETURN(StoredVersion stored, ParseManifest(text, id, version));
    stored.path = path;
    for (const auto& [name, file] : {std::pair(kAdapterConfigFile, &stored.config),
                                     std::pair(kAdapterWeightsFile, &stored.weights)}) {
      LORAD_ASSIGN_OR_RETURN(const int64_t bytes, disk_.FileSize(path / name));
      if (bytes != file->bytes) {
        return absl::DataLossError(
            fmt::format("{} has {} bytes, not {}", name, bytes, file->bytes));
      }
    }
    return stored;
  }

  absl::Status RecoverAdapter(const std::string& id) {
    absl::StatusOr<Found> scanned = Scan(id);
    if (absl::IsDataLoss(scanned.status())) {
      return MoveToQuarantine(layout_.Adapter(id), id, std::string(scanned.status().message()));
    }
    LORAD_RETURN_IF_ERROR(scanned.status());
    const Found& found = *scanned;
    StoreEntry entry{.last_version = found.last_version(), .current = {}, .lingering = {}};

    const auto newest = std::find_if(
        found.versions.rbegin(), found.versions.rend(),
        [&](int64_t version) { return Exists(layout_.Version(id, version) / kManifestFile); });
    if (newest != found.versions.rend() && *newest > found.removed_through) {
      absl::StatusOr<StoredVersion> current = Inspect(id, *newest);
      if (absl::IsDataLoss(current.status()) || absl::IsNotFound(current.status())) {
        LORAD_RETURN_IF_ERROR(QuarantineVersions(id, found, current.status()));
      } else {
        LORAD_RETURN_IF_ERROR(current.status());
        entry.current = *std::move(current);
      }
    }
    LORAD_RETURN_IF_ERROR(DeleteOthers(id, found, entry));
    if (!entry.current && found.removed_through == 0 && !Exists(RemovedThrough(id))) {
      return disk_.RemoveTree(layout_.Adapter(id));  // a Commit that got no further
    }
    store_.entries.emplace(id, std::move(entry));
    return absl::OkStatus();
  }

  // The current version is damaged. It goes with all before it, so that none of them comes back.
  absl::Status QuarantineVersions(const std::string& id, const Found& found,
                                  const absl::Status& reason) {
    for (const int64_t version : found.versions) {
      LORAD_RETURN_IF_ERROR(MoveToQuarantine(layout_.Version(id, version),
                                             fmt::format("{}.{}", id, version),
                                             std::string(reason.message())));
    }
    return WriteRemovedThrough(disk_, layout_, id, found.last_version(),
                               layout_.staging() / "recovery");
  }

  absl::Status DeleteOthers(const std::string& id, const Found& found, const StoreEntry& entry) {
    for (const int64_t version : found.versions) {
      const fs::path path = layout_.Version(id, version);
      if (!Exists(path) || (entry.current && entry.current->version == version)) continue;
      ++(Exists(path / kManifestFile) ? store_.report.superseded : store_.report.unfinished);
      LORAD_RETURN_IF_ERROR(disk_.RemoveTree(path));
    }
    return absl::OkStatus();
  }

  fs::path RemovedThrough(const std::string& id) const {
    return layout_.Adapter(id) / kRemovedThroughFile;
  }

  const Disk& disk_;
  const StoreLayout& layout_;
  RecoveredStore store_;
};

}  // namespace

absl::StatusOr<RecoveredStore> RecoverStore(const Disk& disk, const StoreLayout& layout) {
  return Recoverer(disk, layout).Run();
}

absl::Status WriteRemovedThrough(const Disk& disk, const StoreLayout& layout, std::string_view id,
                                 int64_t version, const fs::path& scratch) {
  absl::Status status = disk.WriteFile(scratch, fmt::format("{}\n", version));
  if (status.ok()) status = disk.Rename(scratch, layout.Adapter(id) / kRemovedThroughFile);
  if (!status.ok()) {
    disk.RemoveTree(scratch).IgnoreError();  // Open empties staging/ in any case
    return status;
  }
  return disk.SyncDirectory(layout.Adapter(id));
}

absl::StatusOr<fs::path> QuarantineName(const StoreLayout& layout, std::string_view wish) {
  for (int i = 0; i < 100'000; ++i) {
    const fs::path path =
        layout.quarantine() / (i == 0 ? std::string(wish) : fmt::format("{}.{}", wish, i));
    if (!Exists(path)) return path;
  }
  return WithReason(absl::ResourceExhaustedError("quarantine/ is full"), "QUARANTINE_FULL");
}

}  // namespace lorad
