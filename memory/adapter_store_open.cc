// How a store is made and opened: AdapterStore::Open.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "memory/adapter_store.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"

namespace lorad {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFormat = 2;
constexpr char kNewFormatFile[] = "format.new";

// Refuses a directory that holds anything but a store: what Open would clean up there is not ours.
absl::Status CheckIsStore(const Disk& disk, const StoreLayout& layout) {
  LORAD_ASSIGN_OR_RETURN(const std::vector<std::string> names, disk.ListDirectory(layout.root));
  absl::Status status;
  for (const std::string& name : names) {
    if (name == "format") return absl::OkStatus();
    if (name != "lock" && name != kNewFormatFile && name != "lost+found") {
      status = WithReason(absl::FailedPreconditionError(fmt::format(
                              "{} holds other things and no adapter store", layout.root.string())),
                          "NOT_A_STORE");
    }
  }
  return status;
}

absl::StatusOr<UniqueFd> Lock(const StoreLayout& layout) {
  UniqueFd fd(::open(layout.lock().c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid()) {
    return ErrnoStatus(errno, fmt::format("cannot open {}", layout.lock().string()));
  }
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
  if (errno != EWOULDBLOCK) {
    return ErrnoStatus(errno, fmt::format("cannot lock {}", layout.lock().string()));
  }
  return WithReason(absl::FailedPreconditionError(fmt::format(
                        "the adapter store {} is in use by another process", layout.root.string())),
                    "STORE_LOCKED");
}

absl::Status WriteFormat(const Disk& disk, const StoreLayout& layout) {
  const fs::path scratch = layout.root / kNewFormatFile;
  LORAD_RETURN_IF_ERROR(disk.RemoveTree(scratch));
  LORAD_RETURN_IF_ERROR(disk.WriteFile(scratch, fmt::format("{}\n", kFormat)));
  LORAD_RETURN_IF_ERROR(disk.Rename(scratch, layout.format()));
  return disk.SyncDirectory(layout.root);
}

// The format of what lies there; of a new store, after writing it.
absl::StatusOr<int64_t> CheckFormat(const Disk& disk, const StoreLayout& layout) {
  absl::StatusOr<std::string> text = disk.ReadFile(layout.format(), 32);
  if (absl::IsNotFound(text.status())) {
    LORAD_RETURN_IF_ERROR(WriteFormat(disk, layout));
    const absl::Status status = disk.SyncDirectory(layout.root.parent_path());
    if (absl::IsPermissionDenied(status)) return kFormat;  // it may not be ours to read
    LORAD_RETURN_IF_ERROR(status);
    return kFormat;
  }
  LORAD_RETURN_IF_ERROR(text.status());
  if (!text->empty() && text->back() == '\n') text->pop_back();
  const int64_t format = ParseVersionNumber(*text);
  if (format == 0) {
    return WithReason(absl::DataLossError(fmt::format("{} does not hold a format's number",
                                                      layout.format().string())),
                      "STORE_CORRUPT");
  }
  if (format <= kFormat) return format;
  return WithReason(absl::FailedPreconditionError(fmt::format(
                        "the adapter store {} has format {}; this version of lorad reads up to {}",
                        layout.root.string(), format, kFormat)),
                    "STORE_FORMAT_UNSUPPORTED");
}

}  // namespace

absl::StatusOr<std::unique_ptr<AdapterStore>> AdapterStore::Open(const fs::path& root,
                                                                 Options options) {
  std::error_code error;
  StoreLayout layout{fs::absolute(root, error).lexically_normal()};
  if (!layout.root.has_filename()) layout.root = layout.root.parent_path();  // a slash at the end
  if (root.empty() || error) {
    return InvalidField("adapter store", "needs the path of a directory");
  }
  fs::create_directories(layout.root.parent_path(), error);  // what is wrong shows in the next line
  const Disk disk(layout.root, options.disk_hook);
  LORAD_RETURN_IF_ERROR(disk.EnsureDirectory(layout.root));
  LORAD_RETURN_IF_ERROR(CheckIsStore(disk, layout));
  LORAD_ASSIGN_OR_RETURN(UniqueFd lock, Lock(layout));
  LORAD_ASSIGN_OR_RETURN(const int64_t format, CheckFormat(disk, layout));
  LORAD_ASSIGN_OR_RETURN(RecoveredStore recovered,
                         RecoverStore(disk, layout, options.keep_versions));
  // What lies in a store of format 1 means the same in format 2. Until this line a lorad that knows
  // only format 1 can still open it: nothing was written that it does not know.
  if (format < kFormat) LORAD_RETURN_IF_ERROR(WriteFormat(disk, layout));
  return std::unique_ptr<AdapterStore>(
      new AdapterStore(layout, std::move(options), std::move(lock), std::move(recovered)));
}

}  // namespace lorad
