#include "model/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "memory/base/status_macros.h"

namespace lorad {
namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

struct OpenedFile {
  FileDescriptor fd;
  uint64_t bytes;
};

absl::StatusOr<OpenedFile> OpenRegular(const std::filesystem::path& path, const FileRules& rules) {
  const std::string name = path.filename().string();
  // O_NONBLOCK: opening a FIFO must not wait for its writer.
  const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | (rules.follow_symlinks ? 0 : O_NOFOLLOW);
  FileDescriptor fd(::open(path.c_str(), flags));
  if (fd.get() < 0) {
    const int error = errno;
    if (error == ENOENT) return absl::NotFoundError(fmt::format("{}: no such file", name));
    if (error == ELOOP && !rules.follow_symlinks) {
      return absl::InvalidArgumentError(fmt::format("{}: is a symbolic link", name));
    }
    return absl::UnavailableError(fmt::format("{}: {}", name, std::strerror(error)));
  }
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) {
    return absl::UnavailableError(fmt::format("{}: {}", name, std::strerror(errno)));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(fmt::format("{}: is not a regular file", name));
  }
  const auto bytes = static_cast<uint64_t>(info.st_size);
  if (bytes > rules.max_bytes) {
    return absl::InvalidArgumentError(
        fmt::format("{}: has {} bytes, more than the limit of {}", name, bytes, rules.max_bytes));
  }
  return OpenedFile{std::move(fd), bytes};
}

}  // namespace

absl::StatusOr<MappedFile> MappedFile::Open(const std::filesystem::path& path,
                                            const FileRules& rules) {
  LORAD_ASSIGN_OR_RETURN(const OpenedFile opened, OpenRegular(path, rules));
  MappedFile file;
  if (opened.bytes == 0) return file;
  void* data = ::mmap(nullptr, opened.bytes, PROT_READ, MAP_PRIVATE, opened.fd.get(), 0);
  if (data == MAP_FAILED) {
    return absl::UnavailableError(
        fmt::format("{}: mmap: {}", path.filename().string(), std::strerror(errno)));
  }
  file.bytes_ = {static_cast<const std::byte*>(data), opened.bytes};
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

absl::StatusOr<std::string> ReadTextFile(const std::filesystem::path& path,
                                         const FileRules& rules) {
  LORAD_ASSIGN_OR_RETURN(const OpenedFile opened, OpenRegular(path, rules));
  std::string text(opened.bytes, '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t got = ::read(opened.fd.get(), text.data() + done, text.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return absl::UnavailableError(
          fmt::format("{}: {}", path.filename().string(), std::strerror(errno)));
    }
    if (got == 0) break;  // cut short since fstat
    done += static_cast<size_t>(got);
  }
  text.resize(done);
  return text;
}

}  // namespace lorad
