// StoreIndex: what the store holds, in memory: its adapters and their versions, what each owner
// uses, and which files are one on disk. No I/O; the books of what AdapterStore does on disk.
//
// Not thread-safe: AdapterStore guards it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "memory/stored_version.h"

namespace lorad {

// What an owner has. Bytes are those of all its versions that have not been removed, current, kept
// and lingering ones, each with both files: what others have stored already makes no difference, so
// that nobody learns of it.
struct StoreUsage {
  int64_t adapters = 0;
  int64_t bytes = 0;
};

// What the store knows of one id. It stays when the adapter is deleted, for its number.
struct StoreEntry {
  int64_t last_version = 0;     // the greatest number ever used
  int64_t removed_through = 0;  // as on disk; 0: there is no such file
  bool unsettled = false;       // the disk may tell another story: see AdapterStore::Settle
  std::optional<StoredAdapter> adapter;  // none: deleted
  std::vector<StoredVersion> lingering;  // ascending; without their facts
};

class StoreIndex {
 public:
  using Entries = std::map<std::string, StoreEntry, std::less<>>;

  // REQUIRES: keep_versions >= 0.
  explicit StoreIndex(int keep_versions);

  const Entries& entries() const { return entries_; }
  // Null if nothing was ever stored under `id`. Valid until the next change.
  const StoreEntry* Find(std::string_view id) const;
  // The adapter of `id`, or null.
  const StoredAdapter* FindAdapter(std::string_view id) const;

  // The version of `id`, be it current, kept or lingering, or null.
  const StoredVersion* FindVersion(std::string_view id, int64_t version) const;
  // Whether the version is current or kept.
  bool Keeps(std::string_view id, int64_t version) const;

  int64_t adapters() const { return adapters_; }
  int64_t bytes() const { return bytes_; }  // files that are one count once
  StoreUsage OwnerUsage(std::string_view owner) const;
  const std::map<std::string, StoreUsage, std::less<>>& usage() const { return usage_; }
  // Whether the file is one of a version.
  bool HoldsInode(uint64_t inode) const { return inodes_.contains(inode); }

  // What Open found of `id`. REQUIRES: the id is new.
  void Recover(std::string_view id, StoreEntry entry);

  // `version` is the current one from now on: the one before is kept, and those that are too many
  // linger. REQUIRES: its number is greater than all before.
  void SetCurrent(StoredVersion version, std::string settings, int64_t revision);
  // A version that is on disk and should not be. REQUIRES: as SetCurrent.
  void AddLingering(StoredVersion version);
  // The number is used, and no version has it.
  void SpendNumber(std::string_view id, int64_t version);
  // REQUIRES of these: there is an adapter `id`.
  void SetSettings(std::string_view id, std::string settings, int64_t revision);
  void Delete(std::string_view id);
  // Forgets a kept or lingering version. REQUIRES: it is one.
  void Drop(std::string_view id, int64_t version);
  // REQUIRES: there is an entry `id`.
  void SetUnsettled(std::string_view id, bool unsettled);

 private:
  // The entry of `id`. REQUIRES: it exists.
  StoreEntry& At(std::string_view id);
  void Linger(StoreEntry* entry, StoredVersion version);
  // Count the files of a version that is stored, and no more when it is removed.
  void Count(const StoredVersion& version);
  void Uncount(const StoredVersion& version);
  void CountAdapter(std::string_view id, int change);

  const int keep_versions_;
  Entries entries_;
  std::map<std::string, StoreUsage, std::less<>> usage_;  // by owner, without what is zero
  absl::flat_hash_map<uint64_t, int> inodes_;             // how many files of versions each is
  int64_t adapters_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace lorad
