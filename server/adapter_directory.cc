#include "server/adapter_directory.h"

#include <fmt/format.h>

#include <utility>

#include "memory/base/check.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "memory/store_errors.h"
#include "memory/stored_version.h"

namespace lorad {

bool MaySee(std::string_view caller, std::string_view id) {
  const std::string_view owner = OwnerOf(id);
  return caller.empty() || owner.empty() || owner == caller;
}

absl::Status NotYours(std::string_view id) {
  return OfAdapter(absl::PermissionDeniedError("only the owner of an adapter may change it"),
                   "NOT_YOURS", id);
}

std::string AdapterInfo::etag() const { return fmt::format("{}-{}", current_version, revision); }

AdapterInfo AdapterDirectory::Entry::InfoOf(AdapterVersionPtr version) const {
  return {.version = std::move(version),
          .settings = settings,
          .current_version = current->version,
          .revision = revision};
}

AdapterVersionPtr AdapterDirectory::Entry::Find(int64_t version) const {
  if (current->version == version) return current;
  for (const AdapterVersionPtr& old : kept) {
    if (old->version == version && old->facts != nullptr) return old;
  }
  return nullptr;
}

void AdapterDirectory::Put(Entry entry) {
  LORAD_CHECK(entry.current != nullptr && entry.settings != nullptr);
  const std::string id = entry.current->name;
  const std::string_view tenant = OwnerOf(id);
  auto at = entries_.find(id);
  if (at != entries_.end()) {
    Forget(at);
    at->second = std::move(entry);
  } else {
    at = entries_.emplace(id, std::move(entry)).first;
  }
  const Entry& now = at->second;
  if (tenant.empty()) public_.insert(at->first);
  ++counts_[std::string(tenant)];
  if (now.settings->pinned) pinned_pages_ += now.current->pages;
  for (const std::string& alias : now.settings->aliases) {
    aliases_.insert_or_assign(AdapterIdIn(tenant, alias), at->first);
  }
}

void AdapterDirectory::Erase(std::string_view id) {
  const auto at = entries_.find(id);
  if (at == entries_.end()) return;
  Forget(at);
  entries_.erase(at);
}

void AdapterDirectory::Forget(Entries::iterator at) {
  const auto& [id, entry] = *at;
  const std::string_view tenant = OwnerOf(id);
  if (tenant.empty()) public_.erase(id);
  const auto count = counts_.find(tenant);
  if (--count->second == 0) counts_.erase(count);
  if (entry.settings->pinned) pinned_pages_ -= entry.current->pages;
  for (const std::string& alias : entry.settings->aliases) {
    const auto held = aliases_.find(AdapterIdIn(tenant, alias));
    if (held != aliases_.end() && held->second == id) aliases_.erase(held);
  }
}

const AdapterDirectory::Entry* AdapterDirectory::Get(std::string_view id) const {
  const auto found = entries_.find(id);
  return found == entries_.end() ? nullptr : &found->second;
}

std::string AdapterDirectory::AliasHolder(std::string_view tenant, std::string_view alias) const {
  const auto found = aliases_.find(AdapterIdIn(tenant, alias));
  return found == aliases_.end() ? std::string() : found->second;
}

const AdapterDirectory::Entry* AdapterDirectory::Lookup(std::string_view id) const {
  if (const Entry* entry = Get(id); entry != nullptr) return entry;
  const auto alias = aliases_.find(id);
  return alias == aliases_.end() ? nullptr : Get(alias->second);
}

const AdapterDirectory::Entry* AdapterDirectory::Lookup(std::string_view caller,
                                                        const AdapterName& name) const {
  if (!name.tenant.empty()) {
    const std::string id = name.id();
    return MaySee(caller, id) ? Lookup(id) : nullptr;
  }
  const Entry* own = caller.empty() ? nullptr : Lookup(AdapterIdIn(caller, name.name));
  return own != nullptr ? own : Lookup(name.name);
}

absl::StatusOr<AdapterInfo> AdapterDirectory::Find(std::string_view caller,
                                                   const AdapterName& name) const {
  const Entry* entry = Lookup(caller, name);
  if (entry == nullptr) return AdapterNotFound(name.id());
  if (name.version == 0) return entry->Info();
  AdapterVersionPtr version = entry->Find(name.version);
  if (version == nullptr) return VersionNotFound(entry->current->name, name.version);
  return entry->InfoOf(std::move(version));
}

absl::StatusOr<AdapterInfo> AdapterDirectory::FindForChange(std::string_view caller,
                                                            const AdapterName& name) const {
  if (name.version != 0) return InvalidField("name", "must not name a version");
  LORAD_ASSIGN_OR_RETURN(AdapterInfo info, Find(caller, name));
  if (!caller.empty() && OwnerOf(info.id()) != caller) return NotYours(name.id());
  return info;
}

const AdapterDirectory::Entry* AdapterDirectory::After(std::string_view caller,
                                                       std::string_view after) const {
  if (caller.empty()) {
    const auto next = entries_.upper_bound(after);
    return next == entries_.end() ? nullptr : &next->second;
  }
  // The lesser of the next public one and the caller's next; others' are never walked over.
  const Entry* found = nullptr;
  const std::string own = fmt::format("{}/", caller);
  const auto next = entries_.upper_bound(std::max(after, std::string_view(own)));
  if (next != entries_.end() && next->first.starts_with(own)) found = &next->second;
  const auto open = public_.upper_bound(after);
  if (open != public_.end() && (found == nullptr || *open < found->current->name)) {
    found = Get(*open);
  }
  return found;
}

int AdapterDirectory::CountOf(std::string_view tenant) const {
  const auto found = counts_.find(tenant);
  return found == counts_.end() ? 0 : found->second;
}

int AdapterDirectory::Count(std::string_view caller) const {
  return caller.empty() ? size() : CountOf("") + CountOf(caller);
}

}  // namespace lorad
