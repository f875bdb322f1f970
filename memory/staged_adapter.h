// StagedAdapter: an adapter on its way into the store. Its files lie in a directory that nobody
// else reads; they are there to be checked by the caller, then given to AdapterStore::Commit. One
// that is not committed is removed when it is destroyed.
//
// Thread: one at a time. REQUIRES: the store outlives it.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "memory/disk.h"
#include "memory/sha256.h"
#include "memory/stored_version.h"

namespace lorad {

class AdapterStore;

// What a caller says of a file before it comes.
struct DeclaredFile {
  std::string name;
  int64_t bytes = 0;
  std::string sha256;  // lower-case hexadecimal; empty: not known
};

class StagedAdapter {
 public:
  StagedAdapter(StagedAdapter&& other) noexcept;
  StagedAdapter& operator=(StagedAdapter&& other) noexcept;
  ~StagedAdapter();

  // Appends `bytes` to the file that was declared as number `file`. `offset` must be the file's
  // size so far: each file is written from its first byte to its last without gaps. InvalidArgument
  // (fields "file_index", "offset", "data") for what does not fit the declaration; DataLoss
  // CHECKSUM_MISMATCH at the last byte of a file whose hash is another than was declared. After a
  // failure the adapter is of no use any more: all that follows fails in the same way.
  absl::Status Write(int file, int64_t offset, std::string_view bytes);

  // OK if all bytes of both files are there; else InvalidArgument UPLOAD_INCOMPLETE, or the failure
  // of a Write.
  absl::Status CheckComplete() const;

  // What arrived, for a caller who asks whether it is stored already. REQUIRES: CheckComplete is
  // OK.
  StoredFile config() const { return Arrived(kAdapterConfigFile); }
  StoredFile weights() const { return Arrived(kAdapterWeightsFile); }

  // The directory with the files, as far as they were written.
  const std::filesystem::path& path() const { return path_; }

 private:
  friend class AdapterStore;
  struct File {
    std::string_view name;  // kAdapterConfigFile or kAdapterWeightsFile
    int64_t bytes = 0;      // declared
    int64_t written = 0;
    std::string sha256;  // declared, later the real one; they are equal
    Sha256 hash;
    UniqueFd fd;  // invalid once synced
  };

  StagedAdapter(AdapterStore* store, std::filesystem::path path);
  absl::Status CheckChunk(int file, int64_t offset, std::string_view bytes) const;
  absl::Status Append(File* file, std::string_view bytes);
  // Makes the files durable and closes them.
  absl::Status Sync();
  StoredFile Arrived(std::string_view name) const;
  int64_t declared_bytes() const { return files_[0].bytes + files_[1].bytes; }
  int64_t unwritten_bytes() const;
  void Discard();

  AdapterStore* store_;  // null: moved from or committed
  std::filesystem::path path_;
  std::array<File, 2> files_;
  absl::Status failure_;
};

}  // namespace lorad
