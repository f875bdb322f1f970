// Disk: the file-system operations that durable state is made of, each with its failure as a
// Status. Every operation that changes the disk first asks a hook, by which tests make any one of
// them fail, or kill the process there.
//
// Rules that its users keep: a file is written under a name that nobody reads, synced, renamed into
// place, and the directory synced; only then is it acknowledged. No operation follows a symbolic
// link in the last component of a path.
//
// Thread-safe (there is no state), if the hook is.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lorad {

// Owns a file descriptor.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      Close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~UniqueFd() { Close(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  void Close();

 private:
  int fd_ = -1;
};

// What `error` (an errno) means for the caller of a service, with a reason: a full disk or quota is
// ResourceExhausted DISK_FULL, a read-only file system FailedPrecondition, no more file descriptors
// or an I/O error Unavailable, ...
absl::Status ErrnoStatus(int error, std::string_view what);

struct FileInfo {
  int64_t bytes = 0;
  uint64_t inode = 0;  // which file it is, whatever its name
  // When its content, and anything about it, was changed last; the kernel's, nanoseconds.
  int64_t modified_ns = 0;
  int64_t changed_ns = 0;

  bool operator==(const FileInfo&) const = default;
};

class Disk {
 public:
  // Called with the operation ("mkdir", "create", "write", "sync", "sync_directory",
  // "sync_filesystem", "rename", "link", "remove") and its path (of a rename the old name, of a
  // link the new one) before it is done. Returns 0, or the errno that the operation shall fail
  // with.
  using Hook = std::function<int(std::string_view operation, const std::filesystem::path& path)>;

  // `root` is only left out of messages: clients see them, and need not know where the server's
  // files lie.
  explicit Disk(std::filesystem::path root, Hook hook = nullptr)
      : root_(std::move(root)), hook_(std::move(hook)) {}

  // Makes a directory that only this user can enter. It may exist already, but not be anything
  // else.
  absl::Status EnsureDirectory(const std::filesystem::path& path) const;
  // A new file for writing. REQUIRES: nothing has that name.
  absl::StatusOr<UniqueFd> Create(const std::filesystem::path& path) const;
  absl::Status Write(const UniqueFd& fd, const std::filesystem::path& path,
                     std::string_view bytes) const;
  absl::Status Sync(const UniqueFd& fd, const std::filesystem::path& path) const;
  absl::Status SyncDirectory(const std::filesystem::path& path) const;
  // Makes all that was done to the file system of `path` durable, by whatever process.
  absl::Status SyncFileSystem(const std::filesystem::path& path) const;
  absl::Status Rename(const std::filesystem::path& from, const std::filesystem::path& to) const;
  // Makes `to` another name of the file `from`, which may be of any kind. Unimplemented
  // LINK_UNSUPPORTED if the file system has no hard links, or no more for this file.
  absl::Status Link(const std::filesystem::path& from, const std::filesystem::path& to) const;
  // Create, Write and Sync of a whole small file.
  absl::Status WriteFile(const std::filesystem::path& path, std::string_view bytes) const;
  // Removes a file, or a directory with all that is in it. Nothing there is no error.
  absl::Status RemoveTree(const std::filesystem::path& path) const;

  // Opens a regular file for reading; DataLoss if it is anything else, NotFound if it is not there.
  absl::StatusOr<UniqueFd> Open(const std::filesystem::path& path) const;
  // Up to `size` bytes from where `fd` stands; fewer only at the file's end.
  absl::Status Read(const UniqueFd& fd, const std::filesystem::path& path, size_t size,
                    std::string* out) const;
  // A whole file. DataLoss if it is longer than `max_bytes`.
  absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path, size_t max_bytes) const;
  // DataLoss if it is no regular file, NotFound if it is not there.
  absl::StatusOr<FileInfo> Stat(const std::filesystem::path& path) const;
  // Names in a directory, sorted. DataLoss if it is not a real directory.
  absl::StatusOr<std::vector<std::string>> ListDirectory(const std::filesystem::path& path) const;
  // Bytes that this user may still write to the file system.
  absl::StatusOr<int64_t> FreeBytes(const std::filesystem::path& path) const;

 private:
  // OK or the hook's failure.
  absl::Status Before(std::string_view operation, const std::filesystem::path& path) const;
  absl::Status Failed(int error, std::string_view operation,
                      const std::filesystem::path& path) const;

  std::string Shown(const std::filesystem::path& path) const;
  absl::Status Damaged(const std::filesystem::path& path, std::string_view problem) const;
  // Of errno: NotFound if nothing is there, which only readers expect.
  absl::Status CannotRead(std::string_view operation, const std::filesystem::path& path) const;

  const std::filesystem::path root_;
  const Hook hook_;
};

}  // namespace lorad
