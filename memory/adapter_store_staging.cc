// The way into the store: AdapterStore::Begin, BeginCopy and what they check.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "memory/adapter_store.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "memory/sha256.h"

namespace lorad {
namespace {

namespace fs = std::filesystem;

// Opens a directory one component at a time: a symbolic link anywhere on the way could lead out of
// where the caller allows.
absl::StatusOr<UniqueFd> OpenDirectoryNoLinks(const fs::path& directory) {
  if (!directory.is_absolute()) return InvalidField("path", "must be absolute");
  UniqueFd at(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (const fs::path& part : directory.relative_path()) {
    if (part.empty()) continue;  // a slash at the end
    if (part == "..") return InvalidField("path", "must not hold \"..\"");
    UniqueFd next(::openat(at.get(), part.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!next.valid()) {
      if (errno == ENOENT) return InvalidField("path", "does not exist", "PATH_NOT_FOUND");
      if (errno == ENOTDIR || errno == ELOOP) {
        return InvalidField("path", "is no directory, or leads through a symbolic link");
      }
      return WithField(ErrnoStatus(errno, "path: cannot open the directory"), "path");
    }
    at = std::move(next);
  }
  return at;
}

struct Source {
  UniqueFd fd;
  int64_t bytes = 0;
};

absl::StatusOr<Source> OpenSource(const UniqueFd& directory, std::string_view name) {
  // O_NONBLOCK: a fifo would wait for its writer.
  UniqueFd fd(::openat(directory.get(), std::string(name).c_str(),
                       O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ENOENT) {
      return InvalidField("path", fmt::format("has no {}", name), "PATH_NOT_FOUND");
    }
    if (errno == ELOOP) {
      return InvalidField("path", fmt::format("{} is a symbolic link", name));
    }
    return WithField(ErrnoStatus(errno, fmt::format("path: cannot open {}", name)), "path");
  }
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) {
    return WithField(ErrnoStatus(errno, fmt::format("path: cannot stat {}", name)), "path");
  }
  if (!S_ISREG(info.st_mode)) {
    return InvalidField("path", fmt::format("{} is no regular file", name));
  }
  return Source{.fd = std::move(fd), .bytes = info.st_size};
}

absl::Status Copy(const Disk& disk, const Source& source, std::string_view name, int file,
                  StagedAdapter* to) {
  constexpr size_t kBlockBytes = 1 << 20;
  std::string block;
  for (int64_t offset = 0; offset < source.bytes; offset += static_cast<int64_t>(block.size())) {
    const size_t want = std::min(kBlockBytes, static_cast<size_t>(source.bytes - offset));
    LORAD_RETURN_IF_ERROR(disk.Read(source.fd, fs::path(name), want, &block));
    if (block.size() < want) {
      return InvalidField("path", fmt::format("{} became shorter while it was read", name),
                          "FILE_CHANGED");
    }
    LORAD_RETURN_IF_ERROR(to->Write(file, offset, block));
  }
  return absl::OkStatus();
}

absl::Status CheckSize(int64_t bytes, int64_t max_bytes, std::string_view field,
                       std::string_view name) {
  if (bytes < 1) return InvalidField(field, fmt::format("{} is empty", name));
  if (bytes <= max_bytes) return absl::OkStatus();
  return InvalidField(
      field, fmt::format("{} has {} bytes, more than the {} allowed", name, bytes, max_bytes),
      "FILE_TOO_LARGE");
}

}  // namespace

absl::StatusOr<StagedAdapter> AdapterStore::Begin(std::span<const DeclaredFile> files) {
  LORAD_RETURN_IF_ERROR(CheckDeclared(files));
  return Stage(files);
}

absl::Status AdapterStore::CheckDeclared(std::span<const DeclaredFile> files) const {
  for (size_t i = 0; i < files.size(); ++i) {
    const DeclaredFile& file = files[i];
    const std::string field = fmt::format("files[{}]", i);
    if (file.name != kAdapterConfigFile && file.name != kAdapterWeightsFile) {
      return InvalidField(field + ".name",
                          fmt::format("must be {} or {}", kAdapterConfigFile, kAdapterWeightsFile));
    }
    if (i > 0 && file.name == files[0].name) return InvalidField(field + ".name", "comes twice");
    const bool is_config = file.name == kAdapterConfigFile;
    LORAD_RETURN_IF_ERROR(
        CheckSize(file.bytes, is_config ? options_.max_config_bytes : options_.max_weights_bytes,
                  field + ".size_bytes", file.name));
    if (!file.sha256.empty() && !IsSha256(file.sha256)) {
      return InvalidField(field + ".sha256", "must be 64 lower-case hexadecimal digits");
    }
  }
  if (files.size() == 2) return absl::OkStatus();
  return InvalidField("files",
                      fmt::format("must be {} and {}", kAdapterConfigFile, kAdapterWeightsFile));
}

absl::StatusOr<StagedAdapter> AdapterStore::BeginCopy(const fs::path& directory) {
  LORAD_ASSIGN_OR_RETURN(const UniqueFd from, OpenDirectoryNoLinks(directory));
  LORAD_ASSIGN_OR_RETURN(const Source config, OpenSource(from, kAdapterConfigFile));
  LORAD_ASSIGN_OR_RETURN(const Source weights, OpenSource(from, kAdapterWeightsFile));
  LORAD_RETURN_IF_ERROR(
      CheckSize(config.bytes, options_.max_config_bytes, "path", kAdapterConfigFile));
  LORAD_RETURN_IF_ERROR(
      CheckSize(weights.bytes, options_.max_weights_bytes, "path", kAdapterWeightsFile));
  const std::array<DeclaredFile, 2> files = {
      {{std::string(kAdapterConfigFile), config.bytes, ""},
       {std::string(kAdapterWeightsFile), weights.bytes, ""}}};
  LORAD_ASSIGN_OR_RETURN(StagedAdapter staged, Stage(files));
  LORAD_RETURN_IF_ERROR(Copy(disk_, config, kAdapterConfigFile, 0, &staged));
  LORAD_RETURN_IF_ERROR(Copy(disk_, weights, kAdapterWeightsFile, 1, &staged));
  return staged;
}

absl::Status AdapterStore::Reserve(int64_t bytes) {
  LORAD_ASSIGN_OR_RETURN(const int64_t free_bytes, disk_.FreeBytes(layout_.adapters()));
  const std::lock_guard lock(mutex_);
  if (options_.max_store_bytes > 0 &&
      index_.bytes() + staged_bytes_ + bytes > options_.max_store_bytes) {
    return WithReason(absl::ResourceExhaustedError(fmt::format(
                          "the adapter has {} bytes; {} of the store's {} are taken", bytes,
                          index_.bytes() + staged_bytes_, options_.max_store_bytes)),
                      "STORE_FULL");
  }
  const int64_t available = free_bytes - unwritten_bytes_ - options_.min_free_bytes;
  if (bytes > available) {
    return WithReason(absl::ResourceExhaustedError(
                          fmt::format("the adapter has {} bytes; the disk has room for {}", bytes,
                                      std::max(available, int64_t{0}))),
                      "DISK_FULL");
  }
  staged_bytes_ += bytes;
  unwritten_bytes_ += bytes;
  return absl::OkStatus();
}

// REQUIRES: the files were checked.
absl::StatusOr<StagedAdapter> AdapterStore::Stage(std::span<const DeclaredFile> files) {
  LORAD_RETURN_IF_ERROR(Reserve(files[0].bytes + files[1].bytes));
  StagedAdapter staged(this, NewName(layout_.staging()));
  // From here on `staged` gives the reservation back, whatever fails.
  for (size_t i = 0; i < files.size(); ++i) {
    StagedAdapter::File& file = staged.files_[i];
    file.name = files[i].name == kAdapterConfigFile ? kAdapterConfigFile : kAdapterWeightsFile;
    file.bytes = files[i].bytes;
    file.sha256 = files[i].sha256;
  }
  LORAD_RETURN_IF_ERROR(disk_.EnsureDirectory(staged.path_));
  for (StagedAdapter::File& file : staged.files_) {
    LORAD_ASSIGN_OR_RETURN(file.fd, disk_.Create(staged.path_ / file.name));
  }
  return staged;
}

void AdapterStore::NoteWritten(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  unwritten_bytes_ -= bytes;
}

void AdapterStore::Discard(const StagedAdapter& staged) {
  disk_.RemoveTree(staged.path_).IgnoreError();  // if it fails, Open will do it
  const std::lock_guard lock(mutex_);
  staged_bytes_ -= staged.declared_bytes();
  unwritten_bytes_ -= staged.unwritten_bytes();
}

}  // namespace lorad
