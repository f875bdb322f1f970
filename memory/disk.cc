#include "memory/disk.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <system_error>

#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"

namespace lorad {
namespace {

int64_t Nanoseconds(const struct timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

void UniqueFd::Close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

absl::Status ErrnoStatus(int error, std::string_view what) {
  const std::string message = fmt::format("{}: {}", what, std::strerror(error));
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return WithReason(absl::ResourceExhaustedError(message), "DISK_FULL");
    case EROFS:
      return WithReason(absl::FailedPreconditionError(message), "STORE_READ_ONLY");
    case EACCES:
    case EPERM:
      return WithReason(absl::PermissionDeniedError(message), "STORE_ACCESS_DENIED");
    case EMFILE:
    case ENFILE:
      return WithReason(absl::UnavailableError(message), "TOO_MANY_OPEN_FILES");
    case ENOMEM:
    case EIO:
      return WithReason(absl::UnavailableError(message), "DISK_ERROR");
    case ELOOP:
    case ENOTDIR:
    case EISDIR:
    case ENXIO:
      return WithReason(absl::DataLossError(message), "STORE_CORRUPT");
    default:
      return WithReason(absl::InternalError(message), "DISK_ERROR");
  }
}

absl::Status Disk::Before(std::string_view operation, const std::filesystem::path& path) const {
  const int error = hook_ ? hook_(operation, path) : 0;
  return error == 0 ? absl::OkStatus() : Failed(error, operation, path);
}

std::string Disk::Shown(const std::filesystem::path& path) const {
  const std::string below = path.lexically_relative(root_).string();
  const bool is_below = !below.empty() && below[0] != '.';  // "." and "..": the store's own place
  return is_below ? below : path.string();
}

absl::Status Disk::Failed(int error, std::string_view operation,
                          const std::filesystem::path& path) const {
  return ErrnoStatus(error, fmt::format("adapter store: cannot {} {}", operation, Shown(path)));
}

absl::Status Disk::Damaged(const std::filesystem::path& path, std::string_view problem) const {
  return WithReason(absl::DataLossError(fmt::format("adapter store: {} {}", Shown(path), problem)),
                    "STORE_CORRUPT");
}

absl::Status Disk::CannotRead(std::string_view operation, const std::filesystem::path& path) const {
  const int error = errno;
  const absl::Status status = Failed(error, operation, path);
  if (error != ENOENT) return status;
  return WithReason(absl::NotFoundError(status.message()), "FILE_NOT_FOUND");
}

absl::Status Disk::EnsureDirectory(const std::filesystem::path& path) const {
  LORAD_RETURN_IF_ERROR(Before("mkdir", path));
  if (::mkdir(path.c_str(), 0700) == 0) return absl::OkStatus();
  if (errno != EEXIST) return Failed(errno, "mkdir", path);
  struct stat info;
  if (::lstat(path.c_str(), &info) != 0) return Failed(errno, "stat", path);
  return S_ISDIR(info.st_mode) ? absl::OkStatus() : Damaged(path, "is no directory");
}

absl::StatusOr<UniqueFd> Disk::Create(const std::filesystem::path& path) const {
  LORAD_RETURN_IF_ERROR(Before("create", path));
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid()) return Failed(errno, "create", path);
  return fd;
}

absl::Status Disk::Write(const UniqueFd& fd, const std::filesystem::path& path,
                         std::string_view bytes) const {
  LORAD_RETURN_IF_ERROR(Before("write", path));
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Failed(errno, "write", path);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status Disk::Sync(const UniqueFd& fd, const std::filesystem::path& path) const {
  LORAD_RETURN_IF_ERROR(Before("sync", path));
  return ::fsync(fd.get()) == 0 ? absl::OkStatus() : Failed(errno, "sync", path);
}

absl::Status Disk::SyncDirectory(const std::filesystem::path& path) const {
  LORAD_RETURN_IF_ERROR(Before("sync_directory", path));
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return Failed(errno, "open", path);
  return ::fsync(fd.get()) == 0 ? absl::OkStatus() : Failed(errno, "sync_directory", path);
}

absl::Status Disk::SyncFileSystem(const std::filesystem::path& path) const {
  LORAD_RETURN_IF_ERROR(Before("sync_filesystem", path));
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return Failed(errno, "open", path);
  return ::syncfs(fd.get()) == 0 ? absl::OkStatus() : Failed(errno, "sync_filesystem", path);
}

absl::Status Disk::Rename(const std::filesystem::path& from,
                          const std::filesystem::path& to) const {
  LORAD_RETURN_IF_ERROR(Before("rename", from));
  return ::rename(from.c_str(), to.c_str()) == 0 ? absl::OkStatus() : Failed(errno, "rename", from);
}

absl::Status Disk::Link(const std::filesystem::path& from, const std::filesystem::path& to) const {
  int error = hook_ ? hook_("link", to) : 0;
  // 0: a symbolic link is linked itself.
  if (error == 0 && ::linkat(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), 0) != 0) error = errno;
  switch (error) {
    case 0:
      return absl::OkStatus();
    case EMLINK:
    case EPERM:
    case EXDEV:
    case ENOSYS:
    case EOPNOTSUPP:
      return WithReason(absl::UnimplementedError(Failed(error, "link", to).message()),
                        "LINK_UNSUPPORTED");
    default:
      return Failed(error, "link", to);
  }
}

absl::Status Disk::WriteFile(const std::filesystem::path& path, std::string_view bytes) const {
  LORAD_ASSIGN_OR_RETURN(const UniqueFd fd, Create(path));
  LORAD_RETURN_IF_ERROR(Write(fd, path, bytes));
  return Sync(fd, path);
}

absl::Status Disk::RemoveTree(const std::filesystem::path& path) const {
  LORAD_RETURN_IF_ERROR(Before("remove", path));
  std::error_code error;
  std::filesystem::remove_all(path, error);
  return error ? Failed(error.value(), "remove", path) : absl::OkStatus();
}

absl::StatusOr<UniqueFd> Disk::Open(const std::filesystem::path& path) const {
  // O_NONBLOCK: a fifo would wait for its writer.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid()) return CannotRead("open", path);
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) return Failed(errno, "stat", path);
  if (!S_ISREG(info.st_mode)) return Damaged(path, "is no regular file");
  return fd;
}

absl::Status Disk::Read(const UniqueFd& fd, const std::filesystem::path& path, size_t size,
                        std::string* out) const {
  out->resize(size);
  size_t have = 0;
  while (have < size) {
    const ssize_t got = ::read(fd.get(), out->data() + have, size - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Failed(errno, "read", path);
    if (got == 0) break;
    have += static_cast<size_t>(got);
  }
  out->resize(have);
  return absl::OkStatus();
}

absl::StatusOr<std::string> Disk::ReadFile(const std::filesystem::path& path,
                                           size_t max_bytes) const {
  LORAD_ASSIGN_OR_RETURN(const UniqueFd fd, Open(path));
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) return Failed(errno, "stat", path);
  if (static_cast<uint64_t>(info.st_size) > max_bytes) return Damaged(path, "is too long");
  std::string bytes;
  LORAD_RETURN_IF_ERROR(Read(fd, path, static_cast<size_t>(info.st_size), &bytes));
  return bytes;
}

absl::StatusOr<FileInfo> Disk::Stat(const std::filesystem::path& path) const {
  struct stat info;
  if (::lstat(path.c_str(), &info) != 0) return CannotRead("stat", path);
  if (!S_ISREG(info.st_mode)) return Damaged(path, "is no regular file");
  return FileInfo{.bytes = info.st_size,
                  .inode = info.st_ino,
                  .modified_ns = Nanoseconds(info.st_mtim),
                  .changed_ns = Nanoseconds(info.st_ctim)};
}

absl::StatusOr<std::vector<std::string>> Disk::ListDirectory(
    const std::filesystem::path& path) const {
  struct stat info;
  if (::lstat(path.c_str(), &info) != 0) return Failed(errno, "list", path);
  if (!S_ISDIR(info.st_mode)) return Damaged(path, "is no directory");
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator at(path, error);
  for (; !error && at != std::filesystem::directory_iterator(); at.increment(error)) {
    names.push_back(at->path().filename().string());
  }
  if (error) return Failed(error.value(), "list", path);
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<int64_t> Disk::FreeBytes(const std::filesystem::path& path) const {
  struct statvfs info;
  if (::statvfs(path.c_str(), &info) != 0) return Failed(errno, "stat", path);
  constexpr auto kMax = static_cast<unsigned __int128>(std::numeric_limits<int64_t>::max());
  const auto bytes = static_cast<unsigned __int128>(info.f_bavail) * info.f_frsize;
  return static_cast<int64_t>(std::min(bytes, kMax));
}

}  // namespace lorad
