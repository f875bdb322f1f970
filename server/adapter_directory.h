// AdapterDirectory: the table of adapters: which there are, what they are called, and who may see
// and change them. Values in memory only; the catalog fills it, and guards it.
//
// Who asks is the tenant that a call speaks for, or the operator (empty). The operator sees and
// changes all; a tenant sees public adapters and its own, and changes its own. What it may not see
// is for it as if it did not exist: the errors are the same.
//
// What a name means. With a tenant ("acme/foo") exactly that tenant's; without one ("foo") the
// caller's own, else the public one. In each of the two places an adapter's name goes before an
// alias, so an alias that is also the name of an adapter is hidden by it for as long as it exists.
//
// Invariants: every alias in `aliases_` is in the settings of the adapter that it leads to; of two
// adapters of one tenant whose settings name the same alias it leads to the one that was Put last.
// Counts and pinned pages are sums over the entries.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/adapter_name.h"
#include "server/adapter_settings.h"
#include "server/adapter_version.h"

namespace lorad {

// One adapter as it is at a moment, or one of its versions.
struct AdapterInfo {
  AdapterVersionPtr version;
  AdapterSettingsPtr settings;
  int64_t current_version = 0;
  int64_t revision = 0;

  const std::string& id() const { return version->name; }
  bool is_current() const { return version->version == current_version; }
  // Of the adapter, whichever of its versions this is: "3-7".
  std::string etag() const;
};

class AdapterDirectory {
 public:
  struct Entry {
    AdapterVersionPtr current;
    std::vector<AdapterVersionPtr> kept;  // superseded, newest first
    AdapterSettingsPtr settings;
    int64_t revision = 0;

    AdapterInfo Info() const { return InfoOf(current); }
    AdapterInfo InfoOf(AdapterVersionPtr version) const;
    // Of the current and kept versions that can be used; null if there is none of this number.
    AdapterVersionPtr Find(int64_t version) const;
  };

  // --- The table ---
  // REQUIRES: entry.current and entry.settings are set.
  void Put(Entry entry);
  void Erase(std::string_view id);
  const Entry* Get(std::string_view id) const;  // null: there is none
  // The adapter of `tenant` that this alias leads to, hidden or not; "": none.
  std::string AliasHolder(std::string_view tenant, std::string_view alias) const;
  int size() const { return static_cast<int>(entries_.size()); }
  uint64_t pinned_pages() const { return pinned_pages_; }  // of the current versions

  // --- As `caller` sees it ---
  // Of the version that the name asks for. NotFound ADAPTER_NOT_FOUND, VERSION_NOT_FOUND.
  absl::StatusOr<AdapterInfo> Find(std::string_view caller, const AdapterName& name) const;
  // Of an adapter that the caller may change. Also PermissionDenied NOT_YOURS; InvalidArgument
  // (field "name") if the name asks for a version.
  absl::StatusOr<AdapterInfo> FindForChange(std::string_view caller, const AdapterName& name) const;
  // The first adapter after `after` in the order of ids; null: no more. "": before all.
  const Entry* After(std::string_view caller, std::string_view after) const;
  int Count(std::string_view caller) const;

 private:
  using Entries = std::map<std::string, Entry, std::less<>>;

  const Entry* Lookup(std::string_view id) const;  // by name or alias
  const Entry* Lookup(std::string_view caller, const AdapterName& name) const;
  int CountOf(std::string_view tenant) const;
  void Forget(Entries::iterator at);  // its part in what follows

  Entries entries_;
  std::set<std::string_view> public_;                        // keys of entries_, without a tenant
  std::map<std::string, std::string, std::less<>> aliases_;  // "acme/alias" -> id
  std::map<std::string, int, std::less<>> counts_;           // by tenant; none is 0
  uint64_t pinned_pages_ = 0;
};

// Whether `caller` may know of an adapter of this id.
bool MaySee(std::string_view caller, std::string_view id);

// PermissionDenied NOT_YOURS. `id`: as the caller named it.
absl::Status NotYours(std::string_view id);

}  // namespace lorad
