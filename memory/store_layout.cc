#include "memory/store_layout.h"

#include <fmt/format.h>

#include <system_error>

#include "memory/base/error_detail.h"
#include "memory/stored_version.h"

namespace lorad {

namespace fs = std::filesystem;

std::string DirectoryName(std::string_view id) {
  std::string name(id);
  if (const size_t slash = name.find('/'); slash != std::string::npos) name[slash] = '~';
  return name;
}

std::string IdOfDirectory(std::string_view name) {
  std::string id(name);
  if (const size_t tilde = id.find('~'); tilde != std::string::npos) id[tilde] = '/';
  return ValidateAdapterId(id).ok() ? id : "";
}

absl::Status ReplaceFile(const Disk& disk, const fs::path& scratch, const fs::path& to,
                         std::string_view bytes, bool* replaced) {
  *replaced = false;
  absl::Status status = disk.WriteFile(scratch, bytes);
  if (status.ok()) status = disk.Rename(scratch, to);
  if (!status.ok()) {
    disk.RemoveTree(scratch).IgnoreError();  // Open empties staging/ in any case
    return status;
  }
  *replaced = true;
  return disk.SyncDirectory(to.parent_path());
}

std::string RemovedThroughText(int64_t version) { return fmt::format("{}\n", version); }

absl::StatusOr<fs::path> QuarantineName(const StoreLayout& layout, std::string_view wish) {
  for (int i = 0; i < 100'000; ++i) {
    const fs::path path =
        layout.quarantine() / (i == 0 ? std::string(wish) : fmt::format("{}.{}", wish, i));
    std::error_code error;
    if (!fs::exists(fs::symlink_status(path, error))) return path;
  }
  return WithReason(absl::ResourceExhaustedError("quarantine/ is full"), "QUARANTINE_FULL");
}

}  // namespace lorad
