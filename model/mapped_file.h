// MappedFile: a regular file mapped read-only, and ReadTextFile for small ones. Both check what
// they open before they read a byte: only regular files, within a size limit, and symbolic links
// only where the caller trusts the folder.
//
// Thread-safe once open (immutable). A file that is cut short while mapped raises SIGBUS: map only
// files that nobody rewrites in place (lorad's own store renames into place; operators must not
// edit a served model).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace lorad {

struct FileRules {
  uint64_t max_bytes = uint64_t{1} << 40;
  bool follow_symlinks =
      false;  // model folders of Hugging Face's cache are made of links; uploads have none
};

class MappedFile {
 public:
  // NotFound, or InvalidArgument for what is not a regular file, a link or too big. Messages name
  // the file, not its folder.
  static absl::StatusOr<MappedFile> Open(const std::filesystem::path& path, const FileRules& rules);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  // Stable for the life of the mapping, also when this object is moved.
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

absl::StatusOr<std::string> ReadTextFile(const std::filesystem::path& path, const FileRules& rules);

}  // namespace lorad
