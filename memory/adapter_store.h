// AdapterStore: a directory of adapters that survives crashes and restarts. It knows ids, versions
// and files, not what the files mean: whether an adapter fits a model is checked by the caller
// between staging and commit.
//
//   ROOT/format                            version of this layout; a newer one is refused
//   ROOT/lock                              locked while a process has the store open
//   ROOT/adapters/ID/N/                    version N of adapter ID: two files and manifest.json
//   ROOT/adapters/ID/removed_through       a number: all versions of ID up to it are deleted
//   ROOT/staging/, ROOT/trash/             on the way in and out; emptied by Open
//   ROOT/quarantine/                       what was found damaged or unknown, for a person to see
//
// What is true after a crash at any moment. The current version of ID is the greatest N that has a
// manifest, if it is greater than removed_through. A version appears by one rename of a synced
// directory, and is deleted by one rename of a synced removed_through; so a Commit or Delete that
// was acknowledged is there after a restart, and one that was not has either happened or not.
// Versions that are not current are deleted by Open: nobody can be using them. Numbers are never
// used again, also after a delete. A damaged current version does not bring the one before it back:
// that would be an answer with the wrong weights.
//
// While the store is open, the files of a version stay readable after it was replaced or deleted,
// until Remove: whoever still runs on it may load it again.
//
// Thread-safe. Readers (Latest, List) never wait for the disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "memory/disk.h"
#include "memory/staged_adapter.h"
#include "memory/store_recovery.h"
#include "memory/stored_version.h"

namespace lorad {

// What Commit does if the id is taken.
enum class IfExists { kRefuse, kReplace };

class AdapterStore {
 public:
  struct Options {
    int64_t max_config_bytes = int64_t{1} << 20;
    int64_t max_weights_bytes = int64_t{8} << 30;
    int64_t max_store_bytes = 0;                 // of all files, staged ones included; 0: no limit
    int64_t min_free_bytes = int64_t{64} << 20;  // left on the file system for others
    Disk::Hook disk_hook;                        // for tests
  };

  // Makes the store if `root` is absent or empty, and recovers it. FailedPrecondition STORE_LOCKED
  // if it is open already, here or in another process; STORE_FORMAT_UNSUPPORTED if it is of a newer
  // format; NOT_A_STORE if other things lie there.
  static absl::StatusOr<std::unique_ptr<AdapterStore>> Open(const std::filesystem::path& root,
                                                            Options options);
  AdapterStore(const AdapterStore&) = delete;
  AdapterStore& operator=(const AdapterStore&) = delete;

  // What Open repaired.
  const RecoveryReport& recovery() const { return recovery_; }

  // Starts an adapter whose files will be written. `files`: adapter_config.json and
  // adapter_model.safetensors, in any order. Sizes are checked against the limits and the free
  // space before anything is written. Errors name the field "files[i].name", "files[i].size_bytes",
  // or "files".
  absl::StatusOr<StagedAdapter> Begin(std::span<const DeclaredFile> files);

  // Starts an adapter with copies of the two files in `directory`, and of nothing else there. Reads
  // through no symbolic link and only regular files, so that what the caller checked of a path
  // holds. Errors of what is there name the field "path". REQUIRES: `directory` is absolute and
  // lies where the caller allows (it should be canonical: links are refused).
  absl::StatusOr<StagedAdapter> BeginCopy(const std::filesystem::path& directory);

  // Makes `staged` the current version of `id`, durably. AlreadyExists ADAPTER_EXISTS if there is
  // one and it shall not be replaced. After a failure the store is as before and `staged` is gone.
  absl::StatusOr<StoredVersion> Commit(StagedAdapter staged, std::string_view id,
                                       IfExists if_exists);

  // The adapter exists no more, durably; its files stay until Remove. NotFound ADAPTER_NOT_FOUND.
  absl::Status Delete(std::string_view id);
  // Deletes the files of a version that nobody reads any more; if it is the current one, the
  // adapter first. NotFound if the version is not there.
  absl::Status Remove(std::string_view id, int64_t version);
  // Delete, and Remove of every version. NotFound if there is none.
  absl::Status RemoveAll(std::string_view id);

  // NotFound ADAPTER_NOT_FOUND, also for what is no valid id.
  absl::StatusOr<StoredVersion> Latest(std::string_view id) const;
  // Current versions by id.
  std::vector<StoredVersion> List() const;
  // Bytes of all versions that have not been removed.
  int64_t stored_bytes() const;

  // Reads all bytes of a version: DataLoss ADAPTER_CORRUPT if they are not those that were
  // committed.
  absl::Status Verify(const StoredVersion& version) const;
  // Deletes as Remove does, but keeps the files under quarantine/.
  absl::Status Quarantine(std::string_view id, int64_t version);

 private:
  friend class StagedAdapter;

  AdapterStore(StoreLayout layout, Options options, UniqueFd lock, RecoveredStore recovered);

  // Of StagedAdapter.
  void NoteWritten(int64_t bytes);
  void Discard(const StagedAdapter& staged);

  absl::StatusOr<StagedAdapter> Stage(std::span<const DeclaredFile> files);
  absl::Status CheckDeclared(std::span<const DeclaredFile> files) const;
  // Reserves room for `bytes`, or says why there is none.
  absl::Status Reserve(int64_t bytes);
  std::filesystem::path NewName(const std::filesystem::path& directory);

  absl::Status Publish(const StagedAdapter& staged, const StoredVersion& version, bool first);
  absl::Status DeleteLocked(std::string_view id);
  // Takes a version's directory away to `to`; deletes the adapter first if it is current.
  absl::Status MoveAway(std::string_view id, int64_t version, const std::filesystem::path& to);

  // Constant after construction.
  const StoreLayout layout_;
  const Options options_;
  const UniqueFd lock_;
  const Disk disk_;
  const RecoveryReport recovery_;

  // Held by whatever changes the adapters on disk, during its I/O; taken before mutex_.
  std::mutex write_mutex_;

  // Held for moments only. Guards all that follows.
  mutable std::mutex mutex_;
  StoreEntries entries_;
  int64_t stored_bytes_ = 0;
  int64_t staged_bytes_ = 0;     // declared by all StagedAdapters
  int64_t unwritten_bytes_ = 0;  // of them, not on disk yet
  uint64_t names_ = 0;  // of temporary files; no two processes, and Open empties their directories
};

}  // namespace lorad
