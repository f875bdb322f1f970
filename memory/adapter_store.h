// AdapterStore: a directory of adapters that survives crashes and restarts. It knows ids, versions
// and files, not what the files mean: whether an adapter fits a model is checked by the caller
// between staging and commit.
//
//   ROOT/format                            version of this layout; a newer one is refused, an older
//                                          one is taken over
//   ROOT/lock                              locked while a process has the store open
//   ROOT/blobs/SHA256                      the bytes of a file, named by their hash
//   ROOT/adapters/DIR/N/                   version N of an adapter: manifest.json and two files,
//                                          which are hard links to their blobs
//   ROOT/adapters/DIR/removed_through      a number: all versions of it up to N are deleted
//   ROOT/adapters/DIR/settings             its settings, if they changed after a commit
//   ROOT/staging/, ROOT/trash/             on the way in and out; emptied by Open
//   ROOT/quarantine/                       what was found damaged or unknown, for a person to see
//
// DIR is the adapter's id, with '~' for the '/' after a tenant.
//
// What is true after a crash at any moment. The current version is the greatest N that has a
// manifest, if it is greater than removed_through; those before it, newest first, are kept, as many
// as Options::keep_versions. The settings are those of the current version's manifest or of the
// settings file, whichever has the greater revision; a settings file that was written for a version
// up to removed_through belongs to an adapter that was deleted, and counts for nothing. A version
// appears by one rename of a synced directory; settings change and an adapter is deleted by one
// rename of a synced file. So what was acknowledged is there after a restart, and what was not has
// either happened or not. Versions that are not kept are deleted by Open: nobody can be using them.
// Numbers are never used again, also after a delete. A damaged current version does not bring the
// one before it back: that would be an answer with the wrong weights.
//
// Equal files are stored once. A blob is a name and nothing more: a version lives on if its blob's
// name is lost, and a blob that is a file of no version is removed, at once or by Open. Where the
// file system has no hard links, or no more for a file, a version has a file of its own.
//
// Versions that are neither current nor kept, and those of a deleted adapter, are *lingering*:
// whoever still runs on one may load it again, until the caller says Remove.
//
// Thread-safe. Readers (Get, List, usage) never wait for the disk.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "memory/disk.h"
#include "memory/staged_adapter.h"
#include "memory/store_index.h"
#include "memory/store_layout.h"
#include "memory/store_recovery.h"
#include "memory/stored_version.h"

namespace lorad {

// What Commit does if the id is taken.
enum class IfExists { kRefuse, kReplace };

struct CommitOptions {
  IfExists if_exists = IfExists::kRefuse;
  std::string facts;                    // at most kMaxFactsBytes
  std::optional<std::string> settings;  // at most kMaxSettingsBytes; none: as they are, "" if new
  std::optional<Expected> expected;
  // Limits on what there is after the commit; 0: none. No two commits can pass one together.
  int64_t max_adapters = 0;        // of all owners
  int64_t owner_max_adapters = 0;  // of the id's owner
  int64_t owner_max_bytes = 0;     // of the id's owner, as OwnerUsage counts
};

class AdapterStore {
 public:
  struct Options {
    int64_t max_config_bytes = int64_t{1} << 20;
    int64_t max_weights_bytes = int64_t{8} << 30;
    int64_t max_store_bytes = 0;  // of all files on disk, staged ones included; 0: no limit
    int64_t min_free_bytes = int64_t{64} << 20;  // left on the file system for others
    int keep_versions = 2;                       // superseded ones, of each adapter
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

  // Every change below is durable when it returns OK. When it fails the store is as before, also
  // after a restart; if even that cannot be made durable, the next change of the adapter tries
  // again, and fails if it cannot.

  // Makes `staged` the current version of `id`, and keeps the one before. AlreadyExists
  // ADAPTER_EXISTS if there is one and it shall not be replaced; ResourceExhausted
  // TOO_MANY_ADAPTERS, TENANT_TOO_MANY_ADAPTERS or TENANT_BYTES_EXCEEDED by the limits in
  // `options`. `staged` is gone in any case.
  absl::StatusOr<StoredAdapter> Commit(StagedAdapter staged, std::string_view id,
                                       const CommitOptions& options);

  // Makes a new version with the files and facts of the kept version `version` (0: the newest kept)
  // the current one. The settings stay. NotFound VERSION_NOT_FOUND (resource "adapters/ID@N") if it
  // is not kept.
  absl::StatusOr<StoredAdapter> Rollback(std::string_view id, int64_t version,
                                         const std::optional<Expected>& expected = {});

  absl::StatusOr<StoredAdapter> UpdateSettings(std::string_view id, std::string settings,
                                               const std::optional<Expected>& expected = {});

  // The adapter exists no more; all its versions linger. NotFound ADAPTER_NOT_FOUND.
  absl::Status Delete(std::string_view id, const std::optional<Expected>& expected = {});
  // Deletes the files of a lingering version, which nobody reads any more. FailedPrecondition
  // VERSION_KEPT if it is current or kept: then it stays. NotFound if it is not there.
  absl::Status Remove(std::string_view id, int64_t version);
  // Delete, and Remove of every version. NotFound if there is none.
  absl::Status RemoveAll(std::string_view id);

  // NotFound ADAPTER_NOT_FOUND, also for what is no valid id.
  absl::StatusOr<StoredAdapter> Get(std::string_view id) const;
  std::vector<StoredAdapter> List() const;  // by id
  // Versions of `id` that wait for Remove, ascending; none for what is no valid id.
  std::vector<int64_t> Lingering(std::string_view id) const;
  // The directory with a version's files, while it is not removed.
  std::filesystem::path PathOf(const StoredVersion& version) const;

  StoreUsage OwnerUsage(std::string_view owner) const;  // "": of public adapters
  // By owner; without owners that have nothing.
  std::map<std::string, StoreUsage> UsageByOwner() const;
  // On disk, of all versions that have not been removed: files that are one count once.
  int64_t stored_bytes() const;

  // Reads all bytes of a version: DataLoss ADAPTER_CORRUPT if they are not those that were
  // committed.
  absl::Status Verify(const StoredVersion& version) const;
  // What the file system says of a version's two files. As long as it says the same, they need not
  // be verified again. NotFound or DataLoss if one is not there.
  using Stamp = std::array<FileInfo, 2>;
  absl::StatusOr<Stamp> StampOf(const StoredVersion& version) const;
  // Takes a version away, whatever it is, but keeps its files under quarantine/; if it is the
  // current one, the adapter is deleted first. Its blobs go too, so that nobody gets them again:
  // the next upload of the same bytes brings good ones.
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
  // The hash of a file's bytes.
  absl::StatusOr<std::string> HashOf(const std::filesystem::path& path) const;
  // Takes the blob of `file` out of the way if its bytes are not what its name says, so that no
  // version gets them. Reads it whole; takes write_mutex_ only to move it.
  absl::Status RemoveDamagedBlob(const StoredFile& file);

  // The rest is called with write_mutex_ held.

  // Whether a change may happen: NotFound if there is no adapter, Aborted if it is not as expected.
  absl::Status CheckChange(std::string_view id, const std::optional<Expected>& expected) const;
  absl::Status CheckCommit(std::string_view id, int64_t bytes, const CommitOptions& options) const;
  absl::StatusOr<StoredVersion> KeptVersion(std::string_view id, int64_t version) const;
  // Whatever it is: current, kept or lingering.
  absl::StatusOr<StoredVersion> FindVersion(std::string_view id, int64_t version) const;
  bool IsKept(std::string_view id, int64_t version) const;

  // Makes the files of `version`, which lie in `directory`, links to their blobs; sets the inodes.
  absl::Status LinkBlobs(const std::filesystem::path& directory, StoredVersion* version);
  absl::Status LinkBlob(const std::filesystem::path& path, StoredFile* file);
  // Takes away those blobs of `version` that are files of no version.
  absl::Status RemoveUnusedBlobs(const StoredVersion& version);
  absl::Status RemoveBlob(const StoredFile& file);
  // Makes `directory` with the files of `origin`, as links or copies; sets the inodes of `version`.
  absl::Status LinkVersion(const StoredVersion& origin, const std::filesystem::path& directory,
                           StoredVersion* version);

  // Makes `directory`, which lies in staging/ and holds the synced files of `version`, the next
  // version of its id; sets its number. No `settings`: they stay.
  absl::Status Publish(const std::filesystem::path& directory, StoredVersion* version,
                       const std::optional<std::string>& settings);
  // Publish's last step, which is taken back if it is not durable.
  absl::Status Show(const std::filesystem::path& directory, const StoredVersion& version,
                    bool is_new);
  absl::Status DeleteLocked(std::string_view id, const std::optional<Expected>& expected);
  // Moves the directory of a kept or lingering version to `to`.
  absl::Status MoveAway(const StoredVersion& version, const std::filesystem::path& to);
  // ReplaceFile of a file of `id`, which is taken back if it is not durable.
  absl::Status Replace(std::string_view id, const std::filesystem::path& to,
                       std::string_view bytes);
  // A change that failed late may be on disk and not in index_. Makes the disk say what index_
  // says, before another change builds on it. Most of the time there is nothing to do.
  absl::Status Settle(std::string_view id);

  // Constant after construction.
  const StoreLayout layout_;
  const Options options_;
  const UniqueFd lock_;
  const Disk disk_;
  const RecoveryReport recovery_;

  // Held by whatever changes adapters or blobs on disk, during its I/O; taken before mutex_.
  std::mutex write_mutex_;

  // Held for moments only. Guards all that follows.
  mutable std::mutex mutex_;
  StoreIndex index_;
  int64_t staged_bytes_ = 0;     // declared by all StagedAdapters
  int64_t unwritten_bytes_ = 0;  // of them, not on disk yet
  uint64_t names_ = 0;  // of temporary files; no two processes, and Open empties their directories
};

}  // namespace lorad
