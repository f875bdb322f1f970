#include "tests/unit/memory/store_script.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <sstream>
#include <utility>

#include "memory/base/status_macros.h"
#include "tests/unit/memory/store_fixture.h"

namespace lorad {
namespace {

// The seeds that are kept after another version, of the two that there may be.
std::vector<int> AfterNewVersion(int seed, std::vector<int> kept) {
  if (seed >= 0) kept.insert(kept.begin(), seed);
  if (kept.size() > 2) kept.resize(2);
  return kept;
}

}  // namespace

void Read(const std::string& lines, KnownAdapters* known) {
  std::istringstream in(lines);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string word, id, rest;
    words >> word >> id;
    std::getline(words >> std::ws, rest);
    if (word == "begin") (*known)[id].intended = rest;
    if (word != "done") continue;
    Known& k = (*known)[id];
    k.acknowledged = std::exchange(k.intended, "");
    const int64_t version = std::stoll(rest);
    if (version == 0) continue;
    EXPECT_GT(version, k.greatest) << "a version number came again";
    k.greatest = version;
  }
}

void ExpectKnown(const AdapterStore& store, KnownAdapters* known) {
  for (auto& [id, k] : *known) {
    const std::string found = Describe(store, id);
    EXPECT_TRUE(found == k.acknowledged || (!k.intended.empty() && found == k.intended))
        << fmt::format("{} is {}\nacknowledged: {}\nin flight: {}", id, found, k.acknowledged,
                       k.intended);
    k.acknowledged = found;
    k.intended.clear();
    const absl::StatusOr<StoredVersion> latest = Latest(store, id);
    if (!latest.ok()) continue;
    EXPECT_GE(latest->version, k.greatest);
    k.greatest = latest->version;
  }
  for (const StoredAdapter& adapter : store.List()) EXPECT_TRUE(known->contains(adapter.id()));
}

ScriptedAdapter::ScriptedAdapter(AdapterStore* store, std::string id, Say say)
    : store_(store), id_(std::move(id)), say_(std::move(say)) {}

absl::Status ScriptedAdapter::Put(int seed, const std::optional<std::string>& settings) const {
  const State now = Now();
  Begin(Describe(seed, AfterNewVersion(now.seed, now.kept), settings.value_or(now.settings),
                 now.revision + 1));
  CommitOptions options = Replacing();
  options.settings = settings;
  return End(lorad::Put(store_, id_, seed, options));
}

absl::Status ScriptedAdapter::Rollback(size_t kept) const {
  const State now = Now();
  if (kept >= now.kept.size()) return absl::OkStatus();
  Begin(Describe(now.kept[kept], AfterNewVersion(now.seed, now.kept), now.settings,
                 now.revision + 1));
  return End(store_->Rollback(id_, store_->Get(id_)->kept[kept].version));
}

absl::Status ScriptedAdapter::UpdateSettings(const std::string& settings) const {
  const State now = Now();
  if (now.seed < 0) return absl::OkStatus();
  Begin(Describe(now.seed, now.kept, settings, now.revision + 1));
  return End(store_->UpdateSettings(id_, settings).status());
}

absl::Status ScriptedAdapter::Delete() const {
  if (Now().seed < 0) return absl::OkStatus();
  Begin("none");
  return End(store_->Delete(id_));
}

absl::Status ScriptedAdapter::Quarantine() const {
  if (Now().seed < 0) return absl::OkStatus();
  Begin("none");
  const absl::Status status = store_->Quarantine(id_, store_->Get(id_)->current.version);
  // It is two changes: the adapter may be gone although its files could not be moved.
  return End(store_->Get(id_).ok() ? status : absl::OkStatus());
}

absl::Status ScriptedAdapter::RemoveLingering() const {
  for (const int64_t version : store_->Lingering(id_)) {
    LORAD_RETURN_IF_ERROR(store_->Remove(id_, version));
  }
  return absl::OkStatus();
}

ScriptedAdapter::State ScriptedAdapter::Now() const {
  const absl::StatusOr<StoredAdapter> adapter = store_->Get(id_);
  if (!adapter.ok()) return {};
  State state{.seed = SeedOf(*store_, adapter->current),
              .kept = {},
              .settings = adapter->settings,
              .revision = adapter->revision};
  for (const StoredVersion& v : adapter->kept) state.kept.push_back(SeedOf(*store_, v));
  return state;
}

void ScriptedAdapter::Begin(const std::string& intended) const {
  say_(fmt::format("begin {} {}\n", id_, intended));
}

absl::Status ScriptedAdapter::End(const absl::Status& status) const {
  if (status.ok()) say_(fmt::format("done {} 0\n", id_));
  return status;
}

absl::Status ScriptedAdapter::End(const absl::StatusOr<StoredAdapter>& adapter) const {
  if (adapter.ok()) say_(fmt::format("done {} {}\n", id_, adapter->current.version));
  return adapter.status();
}

absl::Status RandomChange(const ScriptedAdapter& adapter, std::mt19937* random) {
  const int seed = static_cast<int>((*random)() % 6);
  const std::string text = std::to_string((*random)());
  switch ((*random)() % 8) {
    case 0:
      return adapter.Delete();
    case 1:
      return adapter.Rollback((*random)() % 2);
    case 2:
      return adapter.UpdateSettings(text);
    case 3:
      return adapter.Put(seed, text);
    case 4:
      return adapter.Quarantine();
    default:
      return adapter.Put(seed);
  }
}

void VersionsComeAndGo(AdapterStore* store, const ScriptedAdapter::Say& say, const Step& step) {
  const ScriptedAdapter a(store, "a", say), b(store, "acme/b", say);
  step([&] { return a.Put(10); });
  step([&] { return b.Put(10); });  // the same bytes under two names
  for (int seed = 11; seed <= 13; ++seed) {
    step([&] { return a.Put(seed); });
  }
  step([&] { return a.RemoveLingering(); });
  step([&] { return a.Rollback(1); });
  step([&] { return a.RemoveLingering(); });
  step([&] { return b.Delete(); });
  step([&] { return b.RemoveLingering(); });
  step([&] { return b.Put(13); });
  step([&] { return b.Quarantine(); });
  step([&] { return b.Put(13); });
}

void SettingsChangeAndANameIsUsedAgain(AdapterStore* store, const ScriptedAdapter::Say& say,
                                       const Step& step) {
  const ScriptedAdapter a(store, "a", say);
  step([&] { return a.Put(1, "at commit"); });
  step([&] { return a.UpdateSettings("changed"); });
  step([&] { return a.Put(2); });
  step([&] { return a.UpdateSettings("changed again"); });
  step([&] { return a.Put(3, "at the third commit"); });
  step([&] { return a.Rollback(0); });
  for (int i = 0; i < 4; ++i) {
    step([&] { return a.UpdateSettings(fmt::format("change {}", i)); });
  }
  step([&] { return a.Delete(); });
  step([&] { return a.Put(3); });  // another adapter of the same name: nothing of the old one
  step([&] { return a.UpdateSettings("other"); });
  step([&] { return a.RemoveLingering(); });
}

}  // namespace lorad
