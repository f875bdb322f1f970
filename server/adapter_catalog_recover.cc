// The catalog's start: takes in what the store recovered. Adapters whose noted facts still hold
// cost no I/O; the others are read again, on several threads.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "memory/base/status_macros.h"
#include "server/adapter_catalog.h"

namespace lorad {
namespace {

// Of facts that could not be recalled: whether reading the files again may help.
bool WorthAnotherLook(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) || absl::IsDataLoss(status);
}

}  // namespace

AdapterCatalog::FactsFound AdapterCatalog::CheckAgain(
    const std::vector<StoredAdapter>& adapters) const {
  std::vector<const StoredVersion*> unknown;
  const auto look = [&](const StoredVersion& version) {
    if (WorthAnotherLook(parts_.images->Recall(version.facts).status()))
      unknown.push_back(&version);
  };
  for (const StoredAdapter& adapter : adapters) {
    look(adapter.current);
    for (const StoredVersion& kept : adapter.kept) look(kept);
  }
  std::vector<absl::StatusOr<AdapterFactsPtr>> found(unknown.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next.fetch_add(1); i < unknown.size(); i = next.fetch_add(1)) {
      found[i] = parts_.images->Check(parts_.store->PathOf(*unknown[i]), AdapterCheck::kStructure);
    }
  };
  std::vector<std::thread> threads;
  const size_t count = std::min<size_t>(unknown.size(), parts_.recovery_threads);
  for (size_t i = 1; i < count; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  FactsFound by_version;
  for (size_t i = 0; i < unknown.size(); ++i) {
    by_version.emplace(std::pair(unknown[i]->id, unknown[i]->version), std::move(found[i]));
  }
  return by_version;
}

absl::StatusOr<AdapterFactsPtr> AdapterCatalog::FactsOf(const StoredVersion& version,
                                                        const FactsFound& found) const {
  const auto read_again = found.find({version.id, version.version});
  return read_again != found.end() ? read_again->second : parts_.images->Recall(version.facts);
}

std::vector<std::string> AdapterCatalog::Recover() {
  const std::lock_guard changing(change_mutex_);
  const std::vector<StoredAdapter> adapters = parts_.store->List();
  const FactsFound found = CheckAgain(adapters);
  std::vector<std::string> report;
  std::vector<std::pair<int64_t, Entry>> entries;  // sequence of the settings, entry
  for (const StoredAdapter& adapter : adapters) {
    auto facts = FactsOf(adapter.current, found);
    if (!facts.ok()) {
      report.push_back(fmt::format("{}: {}", adapter.id(), std::string(facts.status().message())));
      continue;
    }
    auto settings = SettingsFromText(adapter.settings);
    if (!settings.ok()) {
      report.push_back(
          fmt::format("{}: {}", adapter.id(), std::string(settings.status().message())));
      settings = StoredSettings();
    }
    next_sequence_ = std::max(next_sequence_, settings->sequence + 1);
    Entry entry{.current = MakeVersion(adapter.current, *std::move(facts)),
                .settings = ShareSettings(std::move(settings->settings)),
                .revision = adapter.revision};
    for (const StoredVersion& kept : adapter.kept) {
      entry.kept.push_back(MakeVersion(kept, FactsOf(kept, found).value_or(nullptr)));
      entry.kept.back()->activity->superseded.store(true);
    }
    entries.emplace_back(settings->sequence, std::move(entry));
  }
  // Whoever named an alias last has it.
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  {
    const std::lock_guard lock(mutex_);
    for (auto& [sequence, entry] : entries) directory_.Put(std::move(entry));
    SettleAliases();
  }
  PinRecovered(&report);
  hooks_->counted(directory_.size());
  return report;
}

void AdapterCatalog::SettleAliases() {
  std::vector<Entry> changed;
  for (const Entry* entry = directory_.After("", ""); entry != nullptr;
       entry = directory_.After("", entry->current->name)) {
    const std::string& id = entry->current->name;
    AdapterSettings settings = *entry->settings;
    std::erase_if(settings.aliases, [&](const std::string& alias) {
      return directory_.AliasHolder(OwnerOf(id), alias) != id;
    });
    if (settings == *entry->settings) continue;
    changed.push_back(*entry);
    changed.back().settings = ShareSettings(std::move(settings));
  }
  for (Entry& entry : changed) directory_.Put(std::move(entry));
}

void AdapterCatalog::PinRecovered(std::vector<std::string>* report) {
  uint64_t pages = 0;
  for (const Entry* entry = directory_.After("", ""); entry != nullptr;
       entry = directory_.After("", entry->current->name)) {
    if (!entry->settings->pinned) continue;
    const AdapterVersionPtr& version = entry->current;
    if (pages + version->pages > parts_.max_pinned_pages) {
      report->push_back(
          fmt::format("{}: is not pinned: all pinned adapters would take more than "
                      "{} pages",
                      version->name, parts_.max_pinned_pages));
      continue;
    }
    pages += version->pages;
    hooks_->set_pinned(version, true);
  }
}

}  // namespace lorad
