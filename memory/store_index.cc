#include "memory/store_index.h"

#include <algorithm>
#include <utility>

#include "memory/base/check.h"

namespace lorad {
namespace {

// The one with the number `version`, or the end.
template <typename Versions>
auto FindIn(Versions& versions, int64_t version) {
  return std::find_if(versions.begin(), versions.end(),
                      [&](const StoredVersion& v) { return v.version == version; });
}

}  // namespace

StoreIndex::StoreIndex(int keep_versions) : keep_versions_(keep_versions) {
  LORAD_CHECK(keep_versions >= 0);
}

const StoreEntry* StoreIndex::Find(std::string_view id) const {
  const auto found = entries_.find(id);
  return found == entries_.end() ? nullptr : &found->second;
}

const StoredAdapter* StoreIndex::FindAdapter(std::string_view id) const {
  const StoreEntry* entry = Find(id);
  return entry != nullptr && entry->adapter ? &*entry->adapter : nullptr;
}

const StoredVersion* StoreIndex::FindVersion(std::string_view id, int64_t version) const {
  const StoreEntry* entry = Find(id);
  if (entry == nullptr) return nullptr;
  if (entry->adapter) {
    if (entry->adapter->current.version == version) return &entry->adapter->current;
    const auto kept = FindIn(entry->adapter->kept, version);
    if (kept != entry->adapter->kept.end()) return &*kept;
  }
  const auto lingering = FindIn(entry->lingering, version);
  return lingering == entry->lingering.end() ? nullptr : &*lingering;
}

bool StoreIndex::Keeps(std::string_view id, int64_t version) const {
  const StoreEntry* entry = Find(id);
  return FindVersion(id, version) != nullptr &&
         FindIn(entry->lingering, version) == entry->lingering.end();
}

StoreUsage StoreIndex::OwnerUsage(std::string_view owner) const {
  const auto found = usage_.find(owner);
  return found == usage_.end() ? StoreUsage() : found->second;
}

StoreEntry& StoreIndex::At(std::string_view id) {
  const auto found = entries_.find(id);
  LORAD_CHECK(found != entries_.end());
  return found->second;
}

void StoreIndex::Recover(std::string_view id, StoreEntry entry) {
  const auto [at, is_new] = entries_.emplace(id, std::move(entry));
  LORAD_CHECK(is_new);
  for (const StoredVersion& version : at->second.lingering) Count(version);
  if (!at->second.adapter) return;
  CountAdapter(id, 1);
  Count(at->second.adapter->current);
  for (const StoredVersion& version : at->second.adapter->kept) Count(version);
}

void StoreIndex::SetCurrent(StoredVersion version, std::string settings, int64_t revision) {
  StoreEntry& entry = entries_[version.id];
  LORAD_CHECK(version.version > entry.last_version);
  entry.last_version = version.version;
  Count(version);
  if (!entry.adapter) {
    CountAdapter(version.id, 1);
    entry.adapter.emplace();
  } else {
    std::vector<StoredVersion>& kept = entry.adapter->kept;
    kept.insert(kept.begin(), std::move(entry.adapter->current));
    for (; kept.size() > static_cast<size_t>(keep_versions_); kept.pop_back()) {
      Linger(&entry, std::move(kept.back()));
    }
    kept.shrink_to_fit();
  }
  entry.adapter->current = std::move(version);
  entry.adapter->settings = std::move(settings);
  entry.adapter->revision = revision;
}

void StoreIndex::AddLingering(StoredVersion version) {
  StoreEntry& entry = entries_[version.id];
  LORAD_CHECK(version.version > entry.last_version);
  entry.last_version = version.version;
  Count(version);
  Linger(&entry, std::move(version));
}

void StoreIndex::SpendNumber(std::string_view id, int64_t version) {
  StoreEntry& entry = entries_[std::string(id)];
  entry.last_version = std::max(entry.last_version, version);
}

void StoreIndex::SetSettings(std::string_view id, std::string settings, int64_t revision) {
  StoreEntry& entry = At(id);
  LORAD_CHECK(entry.adapter && revision > entry.adapter->revision);
  entry.adapter->settings = std::move(settings);
  entry.adapter->revision = revision;
}

void StoreIndex::Delete(std::string_view id) {
  StoreEntry& entry = At(id);
  LORAD_CHECK(entry.adapter.has_value());
  StoredAdapter adapter = *std::exchange(entry.adapter, std::nullopt);
  Linger(&entry, std::move(adapter.current));
  for (StoredVersion& version : adapter.kept) Linger(&entry, std::move(version));
  entry.removed_through = entry.last_version;
  CountAdapter(id, -1);
}

void StoreIndex::Drop(std::string_view id, int64_t version) {
  StoreEntry& entry = At(id);
  const auto take_from = [&](std::vector<StoredVersion>* versions) {
    const auto found = FindIn(*versions, version);
    if (found == versions->end()) return false;
    Uncount(*found);
    versions->erase(found);
    return true;
  };
  LORAD_CHECK(take_from(&entry.lingering) || (entry.adapter && take_from(&entry.adapter->kept)));
  entry.lingering.shrink_to_fit();
}

void StoreIndex::SetUnsettled(std::string_view id, bool unsettled) { At(id).unsettled = unsettled; }

void StoreIndex::Linger(StoreEntry* entry, StoredVersion version) {
  version.facts = std::string();
  const auto after =
      std::find_if(entry->lingering.begin(), entry->lingering.end(),
                   [&](const StoredVersion& v) { return v.version > version.version; });
  entry->lingering.insert(after, std::move(version));
}

void StoreIndex::Count(const StoredVersion& version) {
  usage_[std::string(OwnerOf(version.id))].bytes += version.bytes();
  for (const StoredFile* file : {&version.config, &version.weights}) {
    if (++inodes_[file->inode] == 1) bytes_ += file->bytes;
  }
}

void StoreIndex::Uncount(const StoredVersion& version) {
  const auto usage = usage_.find(OwnerOf(version.id));
  LORAD_CHECK(usage != usage_.end() && usage->second.bytes >= version.bytes());
  usage->second.bytes -= version.bytes();
  if (usage->second.bytes == 0) usage_.erase(usage);  // without files there are no adapters
  for (const StoredFile* file : {&version.config, &version.weights}) {
    const auto inode = inodes_.find(file->inode);
    LORAD_CHECK(inode != inodes_.end());
    if (--inode->second > 0) continue;
    inodes_.erase(inode);
    bytes_ -= file->bytes;
  }
}

void StoreIndex::CountAdapter(std::string_view id, int change) {
  adapters_ += change;
  usage_[std::string(OwnerOf(id))].adapters += change;
}

}  // namespace lorad
