// How a version comes into being: AdapterStore::Commit and Rollback.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "memory/adapter_store.h"
#include "memory/base/check.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "memory/store_errors.h"
#include "memory/store_manifest.h"

namespace lorad {
namespace {

namespace fs = std::filesystem;

// The two files of a version by name.
std::array<std::pair<std::string_view, StoredFile*>, 2> FilesOf(StoredVersion* version) {
  return {{{kAdapterConfigFile, &version->config}, {kAdapterWeightsFile, &version->weights}}};
}

absl::Status CopyFile(const Disk& disk, const fs::path& from, const fs::path& to) {
  constexpr size_t kBlockBytes = 64 << 10;
  LORAD_ASSIGN_OR_RETURN(const UniqueFd source, disk.Open(from));
  LORAD_ASSIGN_OR_RETURN(const UniqueFd copy, disk.Create(to));
  std::string block;
  do {
    LORAD_RETURN_IF_ERROR(disk.Read(source, from, kBlockBytes, &block));
    LORAD_RETURN_IF_ERROR(disk.Write(copy, to, block));
  } while (block.size() == kBlockBytes);
  return disk.Sync(copy, to);
}

}  // namespace

absl::StatusOr<StoredAdapter> AdapterStore::Commit(StagedAdapter staged, std::string_view id,
                                                   const CommitOptions& options) {
  LORAD_CHECK(staged.store_ == this);
  LORAD_RETURN_IF_ERROR(ValidateAdapterId(id));
  LORAD_RETURN_IF_ERROR(CheckText(options.facts, kMaxFactsBytes, "facts"));
  if (options.settings) {
    LORAD_RETURN_IF_ERROR(CheckText(*options.settings, kMaxSettingsBytes, "settings"));
  }
  LORAD_RETURN_IF_ERROR(staged.CheckComplete());
  LORAD_RETURN_IF_ERROR(staged.Sync());  // the long part; others may write meanwhile
  LORAD_RETURN_IF_ERROR(RemoveDamagedBlob(staged.config()));  // long too, if there are blobs
  LORAD_RETURN_IF_ERROR(RemoveDamagedBlob(staged.weights()));

  const std::lock_guard write_lock(write_mutex_);
  LORAD_RETURN_IF_ERROR(CheckCommit(id, staged.declared_bytes(), options));
  LORAD_RETURN_IF_ERROR(Settle(id));
  StoredVersion version{.id = std::string(id),
                        .config = staged.config(),
                        .weights = staged.weights(),
                        .create_time = std::chrono::system_clock::now(),
                        .facts = options.facts};
  absl::Status status = LinkBlobs(staged.path_, &version);
  if (status.ok()) status = Publish(staged.path_, &version, options.settings);
  if (!status.ok()) {
    RemoveUnusedBlobs(version).IgnoreError();  // if it fails, Open will do it
    return status;
  }
  const std::lock_guard lock(mutex_);
  staged_bytes_ -= staged.declared_bytes();
  staged.store_ = nullptr;
  return *index_.FindAdapter(id);
}

absl::Status AdapterStore::CheckCommit(std::string_view id, int64_t bytes,
                                       const CommitOptions& options) const {
  const std::lock_guard lock(mutex_);
  const StoredAdapter* adapter = index_.FindAdapter(id);
  if (options.expected) LORAD_RETURN_IF_ERROR(CheckExpected(id, adapter, *options.expected));
  if (adapter != nullptr && options.if_exists == IfExists::kRefuse) {
    return OfAdapter(absl::AlreadyExistsError(fmt::format("adapter {} exists", id)),
                     "ADAPTER_EXISTS", id);
  }
  const std::string_view owner = OwnerOf(id);
  const std::string who = owner.empty() ? "the public" : fmt::format("tenant {}", owner);
  const StoreUsage usage = index_.OwnerUsage(owner);
  const auto too_many = [&](std::string_view of, int64_t most, std::string_view reason) {
    return WithReason(
        absl::ResourceExhaustedError(fmt::format("{} may have at most {} adapters", of, most)),
        reason);
  };
  if (adapter == nullptr && options.max_adapters > 0 && index_.adapters() >= options.max_adapters) {
    return too_many("the server", options.max_adapters, "TOO_MANY_ADAPTERS");
  }
  if (adapter == nullptr && options.owner_max_adapters > 0 &&
      usage.adapters >= options.owner_max_adapters) {
    return too_many(who, options.owner_max_adapters, "TENANT_TOO_MANY_ADAPTERS");
  }
  if (options.owner_max_bytes > 0 && bytes > options.owner_max_bytes - usage.bytes) {
    return WithReason(absl::ResourceExhaustedError(
                          fmt::format("the adapter has {} bytes; {} has {} of at most {}", bytes,
                                      who, usage.bytes, options.owner_max_bytes)),
                      "TENANT_BYTES_EXCEEDED");
  }
  return absl::OkStatus();
}

absl::Status AdapterStore::RemoveDamagedBlob(const StoredFile& file) {
  const fs::path blob = layout_.Blob(file.sha256);
  const absl::StatusOr<FileInfo> found = disk_.Stat(blob);
  if (!found.ok() || found->bytes != file.bytes) return absl::OkStatus();  // LinkBlob sees to that
  const absl::StatusOr<std::string> sha256 = HashOf(blob);
  if (absl::IsNotFound(sha256.status())) return absl::OkStatus();  // it was removed meanwhile
  if (sha256.ok() && *sha256 == file.sha256) return absl::OkStatus();
  const bool is_unreadable = GetErrorDetail(sha256.status()).reason == "DISK_ERROR";
  if (!sha256.ok() && !is_unreadable) return sha256.status();

  const std::lock_guard write_lock(write_mutex_);
  const absl::StatusOr<FileInfo> there = disk_.Stat(blob);
  if (!there.ok() || there->inode != found->inode) return absl::OkStatus();  // another was quicker
  LORAD_ASSIGN_OR_RETURN(const fs::path to, QuarantineName(layout_, "blob." + file.sha256));
  return disk_.Rename(blob, to);
}

absl::Status AdapterStore::LinkBlobs(const fs::path& directory, StoredVersion* version) {
  for (const auto& [name, file] : FilesOf(version)) {
    LORAD_RETURN_IF_ERROR(LinkBlob(directory / name, file));
  }
  return absl::OkStatus();
}

absl::Status AdapterStore::LinkBlob(const fs::path& path, StoredFile* file) {
  const auto own_copy = [](const absl::Status& status) {  // no link is possible, which is no harm
    return absl::IsUnimplemented(status) ? absl::OkStatus() : status;
  };
  LORAD_ASSIGN_OR_RETURN(const FileInfo arrived, disk_.Stat(path));
  file->inode = arrived.inode;
  const fs::path blob = layout_.Blob(file->sha256);
  const absl::StatusOr<FileInfo> there = disk_.Stat(blob);
  if (there.ok() && there->bytes == file->bytes) {
    fs::path link = path;
    link += ".link";
    const absl::Status status = disk_.Link(blob, link);
    if (!status.ok()) return own_copy(status);
    LORAD_RETURN_IF_ERROR(disk_.Rename(link, path));
    file->inode = there->inode;
    return absl::OkStatus();
  }
  if (there.ok() || absl::IsDataLoss(there.status())) {  // it is not what its name says
    LORAD_ASSIGN_OR_RETURN(const fs::path to, QuarantineName(layout_, "blob." + file->sha256));
    LORAD_RETURN_IF_ERROR(disk_.Rename(blob, to));
  } else if (!absl::IsNotFound(there.status())) {
    return there.status();
  }
  return own_copy(disk_.Link(path, blob));
}

absl::Status AdapterStore::RemoveUnusedBlobs(const StoredVersion& version) {
  for (const StoredFile* file : {&version.config, &version.weights}) {
    {
      const std::lock_guard lock(mutex_);
      if (index_.HoldsInode(file->inode)) continue;
    }
    LORAD_RETURN_IF_ERROR(RemoveBlob(*file));
  }
  return absl::OkStatus();
}

// Quick, however large the file: a version's directory, wherever it is by now, holds a link to it.
absl::Status AdapterStore::RemoveBlob(const StoredFile& file) {
  const fs::path blob = layout_.Blob(file.sha256);
  const absl::StatusOr<FileInfo> there = disk_.Stat(blob);
  if (absl::IsNotFound(there.status()) || absl::IsDataLoss(there.status())) {
    return absl::OkStatus();  // what is no file is not this one
  }
  LORAD_RETURN_IF_ERROR(there.status());
  return there->inode == file.inode ? disk_.RemoveTree(blob) : absl::OkStatus();
}

absl::Status AdapterStore::Publish(const fs::path& directory, StoredVersion* version,
                                   const std::optional<std::string>& settings) {
  Manifest manifest;
  manifest.revision = 0;
  bool is_new = true;
  {
    const std::lock_guard lock(mutex_);
    const StoreEntry* entry = index_.Find(version->id);
    version->version = entry == nullptr ? 1 : entry->last_version + 1;
    if (const StoredAdapter* adapter = index_.FindAdapter(version->id)) {
      is_new = false;
      manifest.settings = adapter->settings;
      manifest.revision = adapter->revision;
    }
  }
  manifest.version = *version;
  ++manifest.revision;
  if (settings) manifest.settings = *settings;
  LORAD_RETURN_IF_ERROR(CheckNumber(version->id, std::max(version->version, manifest.revision)));
  LORAD_RETURN_IF_ERROR(disk_.WriteFile(directory / kManifestFile, ToManifest(manifest)));
  LORAD_RETURN_IF_ERROR(disk_.SyncDirectory(directory));
  LORAD_RETURN_IF_ERROR(Show(directory, *version, is_new));

  const std::lock_guard lock(mutex_);
  index_.SetCurrent(std::move(manifest.version), std::move(manifest.settings), manifest.revision);
  return absl::OkStatus();
}

absl::Status AdapterStore::Show(const fs::path& directory, const StoredVersion& version,
                                bool is_new) {
  const fs::path adapter = layout_.Adapter(version.id), to = PathOf(version);
  LORAD_RETURN_IF_ERROR(disk_.EnsureDirectory(adapter));
  LORAD_RETURN_IF_ERROR(disk_.Rename(directory, to));
  absl::Status status = disk_.SyncDirectory(adapter);
  if (status.ok() && is_new) status = disk_.SyncDirectory(layout_.adapters());
  if (status.ok()) return status;
  // Visible, but nobody knows for how long: take it back. Its number is spent even so.
  const bool undone = disk_.Rename(to, directory).ok();
  disk_.SyncDirectory(adapter).IgnoreError();  // if it fails, the next change does it
  const std::lock_guard lock(mutex_);
  if (undone) {
    index_.SpendNumber(version.id, version.version);
  } else {
    index_.AddLingering(version);
    index_.SetUnsettled(version.id, true);
  }
  return status;
}

absl::StatusOr<StoredAdapter> AdapterStore::Rollback(std::string_view id, int64_t version,
                                                     const std::optional<Expected>& expected) {
  const std::lock_guard write_lock(write_mutex_);
  LORAD_RETURN_IF_ERROR(CheckChange(id, expected));
  LORAD_RETURN_IF_ERROR(Settle(id));
  LORAD_ASSIGN_OR_RETURN(const StoredVersion origin, KeptVersion(id, version));
  StoredVersion next = origin;
  next.origin_version = origin.version;
  next.create_time = std::chrono::system_clock::now();
  const fs::path directory = NewName(layout_.staging());
  absl::Status status = LinkVersion(origin, directory, &next);
  if (status.ok()) status = Publish(directory, &next, std::nullopt);
  if (!status.ok()) {
    disk_.RemoveTree(directory).IgnoreError();  // if it fails, Open will do it
    return status;
  }
  const std::lock_guard lock(mutex_);
  return *index_.FindAdapter(id);
}

absl::StatusOr<StoredVersion> AdapterStore::KeptVersion(std::string_view id,
                                                        int64_t version) const {
  const std::lock_guard lock(mutex_);
  const std::vector<StoredVersion>& kept = index_.FindAdapter(id)->kept;
  if (version == 0) {
    if (!kept.empty()) return kept.front();
    return OfAdapter(absl::NotFoundError(fmt::format("no version of adapter {} is kept", id)),
                     "VERSION_NOT_FOUND", id);
  }
  const auto found = std::find_if(kept.begin(), kept.end(),
                                  [&](const StoredVersion& v) { return v.version == version; });
  if (found == kept.end()) return VersionNotFound(id, version);
  return *found;
}

absl::Status AdapterStore::LinkVersion(const StoredVersion& origin, const fs::path& directory,
                                       StoredVersion* version) {
  LORAD_RETURN_IF_ERROR(disk_.EnsureDirectory(directory));
  for (const auto& [name, file] : FilesOf(version)) {
    const fs::path from = PathOf(origin) / name, to = directory / name;
    const absl::StatusOr<FileInfo> there = disk_.Stat(from);
    if (absl::IsNotFound(there.status()) || absl::IsDataLoss(there.status())) {
      return AdapterCorrupt(origin, std::string(there.status().message()));
    }
    LORAD_RETURN_IF_ERROR(there.status());
    if (there->bytes != file->bytes) {
      return AdapterCorrupt(origin, fmt::format("{} is not what was stored", name));
    }
    absl::Status status = disk_.Link(from, to);
    if (absl::IsUnimplemented(status)) status = CopyFile(disk_, from, to);
    LORAD_RETURN_IF_ERROR(status);
    LORAD_ASSIGN_OR_RETURN(const FileInfo info, disk_.Stat(to));
    file->inode = info.inode;
  }
  return absl::OkStatus();
}

}  // namespace lorad
