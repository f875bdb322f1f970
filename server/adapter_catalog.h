// AdapterCatalog: which adapters there are. It joins the store's bytes (memory/adapter_store.h)
// with what they mean for this base model (server/adapter_images.h) and with what they are called
// (server/adapter_directory.h): nothing becomes visible before it is checked whole, within every
// limit and durable. A request resolves a name once and holds the version it got. A version that
// was replaced or deleted leaves the pool with its last request, and the disk with its last holder
// once the store does not keep it.
//
// Callers are tenants or the operator (empty), as in the directory.
//
// Threads: any. Reading waits for no file. Changes happen one at a time and read and write files:
// call them from a WorkQueue, not from gRPC's or the engine's threads.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "memory/adapter_store.h"
#include "server/adapter_directory.h"
#include "server/adapter_images.h"
#include "server/engine.h"
#include "server/tenants.h"

namespace lorad {

// An adapter that somebody wants to create.
struct NewAdapter {
  std::string id;  // as IdForCreate gave it
  bool replace = false;
  std::optional<AdapterSettings> settings;  // valid ones; none: as they are
  std::string etag;                         // empty: whatever there is
};

class AdapterCatalog {
 public:
  struct Parts {  // borrowed
    AdapterStore* store = nullptr;
    AdapterImages* images = nullptr;
    const TenantTable* tenants = nullptr;
    int max_adapters = 10000;
    uint64_t max_pinned_pages = 0;             // of all pinned adapters together
    std::vector<std::filesystem::path> roots;  // CreateFromPath reads below these only
    int recovery_threads = 1;
  };
  // What follows from changes, in their order. They must be quick and change nothing here; none is
  // null. `later` is called on any thread, also by the last holder of a version when the catalog is
  // gone, and runs its task on a thread that may touch files.
  struct Hooks {
    std::function<void(AdapterVersionId)> retire = [](AdapterVersionId) {};
    std::function<void(AdapterVersionPtr, bool)> set_pinned = [](const AdapterVersionPtr&, bool) {};
    std::function<void(const std::string& id)> changed = [](const std::string&) {};
    std::function<void(int)> counted = [](int) {};  // how many adapters there are
    std::function<void(std::function<void()>)> later = [](const std::function<void()>& task) {
      task();
    };
  };
  AdapterCatalog(Parts parts, Hooks hooks);

  // At start, once: takes in what the store recovered. Returns a line for each adapter that is not
  // as it was: one that does not fit the base model is left on disk and answers as if absent.
  std::vector<std::string> Recover();

  // --- Reading ---
  // The version that a request is to use; null: the base model. `name` as in
  // GenerateRequest.adapter; errors name the field "adapter".
  absl::StatusOr<AdapterVersionPtr> Resolve(std::string_view caller, std::string_view name) const;
  // By a name, an alias, or with a version; errors name the field "name".
  absl::StatusOr<AdapterInfo> Get(std::string_view caller, std::string_view name) const;
  // The current version and the kept ones, newest first.
  absl::StatusOr<std::vector<AdapterInfo>> Versions(std::string_view caller,
                                                    std::string_view name) const;
  // The first `most` that the caller may see after the id `after`, in the order of ids.
  std::vector<AdapterInfo> List(std::string_view caller, std::string_view after, size_t most) const;
  int Count(std::string_view caller) const;
  // The adapter of this very id, if the caller may see it.
  std::optional<AdapterInfo> Peek(std::string_view caller, std::string_view id) const;

  // --- Changes ---
  // The id that `caller` means when it creates `adapter_id`. PermissionDenied NOT_YOURS if that is
  // another's, whether there is such an adapter or not.
  static absl::StatusOr<std::string> IdForCreate(std::string_view caller,
                                                 std::string_view adapter_id);
  // Quick refusals before `files` are sent or read; needs no I/O. OK promises nothing.
  absl::Status CheckCreatable(const NewAdapter& wanted, std::span<const DeclaredFile> files) const;
  // Whether the adapter's current version has these very files. All hashes must be given.
  bool HasFiles(std::string_view id, std::span<const DeclaredFile> files) const;
  // If HasFiles: the adapter, its settings changed as wanted. Aborted if it has other files by now.
  absl::StatusOr<AdapterInfo> TakeStored(const NewAdapter& wanted,
                                         std::span<const DeclaredFile> files);
  absl::StatusOr<AdapterInfo> Commit(StagedAdapter staged, const NewAdapter& wanted);
  // From a directory below one of the roots (for clients), or from any (for the operator's own
  // configuration).
  absl::StatusOr<AdapterInfo> CreateFromPath(const std::filesystem::path& path,
                                             const NewAdapter& wanted);
  absl::StatusOr<AdapterInfo> Import(const std::filesystem::path& path, const std::string& id);

  // `name` is of an adapter that the caller may change; `etag` of what it is to be, empty: any.
  absl::StatusOr<AdapterInfo> Update(std::string_view caller, std::string_view name,
                                     const AdapterSettings& settings, const SettingsMask& mask,
                                     std::string_view etag);
  // `version`: a kept one; 0: the newest of them.
  absl::StatusOr<AdapterInfo> Rollback(std::string_view caller, std::string_view name,
                                       int64_t version, std::string_view etag);
  // Returns the id of what was deleted.
  absl::StatusOr<std::string> Delete(std::string_view caller, std::string_view name,
                                     std::string_view etag);

  AdapterStore& store() const { return *parts_.store; }
  const TenantTable& tenants() const { return *parts_.tenants; }

  // Reads the version's files again and has its image written. DataLoss ADAPTER_CORRUPT if they are
  // no longer, to the bit, what was checked.
  absl::StatusOr<AdapterImagePtr> LoadImage(const AdapterVersion& version,
                                            const ImageWriter& write) const;

 private:
  using Entry = AdapterDirectory::Entry;

  // Facts of versions that had to be read again, or why they do not fit; by id and version.
  using FactsFound = std::map<std::pair<std::string, int64_t>, absl::StatusOr<AdapterFactsPtr>>;

  // None: there is no such adapter. REQUIRES: change_mutex_ or mutex_ is held.
  std::optional<AdapterInfo> Now(std::string_view id) const;

  // --- REQUIRES of these: change_mutex_ is held ---
  absl::StatusOr<AdapterInfo> ForChange(std::string_view caller, std::string_view name,
                                        std::string_view etag) const;
  // Whether `id` may have these settings with a current version of so many pages.
  absl::Status CheckSettings(std::string_view id, const AdapterSettings& settings,
                             uint32_t pages) const;
  absl::StatusOr<std::string> NextText(const AdapterSettings& settings);
  absl::StatusOr<AdapterInfo> UpdateTo(const AdapterInfo& now, AdapterSettings settings);
  absl::StatusOr<AdapterInfo> CommitNew(StagedAdapter staged, const NewAdapter& wanted,
                                        const std::optional<AdapterInfo>& now,
                                        AdapterFactsPtr facts);
  // Of an adapter that the store has and that does not fit; else `not_found`.
  absl::StatusOr<std::string> DeleteUnusable(std::string_view caller, std::string_view name,
                                             const absl::Status& not_found);
  // Makes what the store holds what everybody sees, and takes the aliases in its settings away from
  // whoever had them. `facts`: of the current version, if it is a new one.
  AdapterInfo Publish(const StoredAdapter& stored, AdapterSettingsPtr settings,
                      AdapterFactsPtr facts);
  void LoseAliases(const std::string& id, const std::set<std::string>& lost);
  // Puts it into the directory, and tells of it.
  AdapterInfo Show(const StoredAdapter& stored, AdapterSettingsPtr settings, AdapterFactsPtr facts);
  absl::Status Verify(const StoredVersion& stored, AdapterActivity* activity) const;
  // Tells the engine and the deleters what became of `old`. `next`: null if it was deleted.
  void LetGo(const Entry& old, const Entry* next);
  AdapterVersionPtr MakeVersion(const StoredVersion& stored, AdapterFactsPtr facts);

  // Of Recover.
  FactsFound CheckAgain(const std::vector<StoredAdapter>& adapters) const;
  absl::StatusOr<AdapterFactsPtr> FactsOf(const StoredVersion& version,
                                          const FactsFound& found) const;
  void SettleAliases();
  void PinRecovered(std::vector<std::string>* report);

  const Parts parts_;
  const std::shared_ptr<const Hooks> hooks_;  // shared with the versions' deleters

  // Held by whatever changes something, during its I/O; taken before mutex_.
  std::mutex change_mutex_;
  AdapterVersionId next_id_ = 1;  // guarded by change_mutex_
  int64_t next_sequence_ = 1;     // guarded by change_mutex_: of StoredSettings

  // Held for moments only.
  mutable std::mutex mutex_;
  AdapterDirectory directory_;  // changed with both held; so either will do to read it
};

}  // namespace lorad
