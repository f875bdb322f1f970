// What watchers are told, and that a slow one is told less and not wrong.
#include "server/adapter_watch.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <random>
#include <thread>

#include "memory/base/error_detail.h"
#include "tests/unit/server/catalog_fixture.h"

namespace lorad {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Watcher = AdapterWatchHub::Watcher;

// Lets a test wait until the hub has told a watcher of something.
class Bell {
 public:
  void Ring() {
    {
      const std::lock_guard lock(mutex_);
      ++rings_;
    }
    rung_.notify_all();
  }
  // Waits until `done` holds, looking again at each ring.
  bool WaitUntil(const std::function<bool()>& done) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    int seen = -1;
    while (!done()) {
      std::unique_lock lock(mutex_);
      if (!rung_.wait_until(lock, end, [&] { return rings_ != seen; })) return false;
      seen = rings_;
    }
    return true;
  }

 private:
  std::mutex mutex_;
  std::condition_variable rung_;
  int rings_ = 0;
};

std::vector<std::string> TakeAll(Watcher* watcher) {
  std::vector<std::string> ids;
  while (auto id = watcher->Take()) ids.push_back(*id);
  return ids;
}

TEST(AdapterWatchHubTest, TellsEachWhatItMaySee) {
  Bell bell;
  AdapterWatchHub hub;  // its thread rings the bell
  std::map<std::string, std::shared_ptr<Watcher>> watchers;
  for (const char* caller : {"", "acme", "other"}) {
    watchers[caller] = *hub.Add(caller);
    watchers[caller]->SetListener([&bell] { bell.Ring(); });
  }
  std::map<std::string, std::vector<std::string>> told;
  for (const char* id : {"zoo", "acme/foo", "other/foo"}) hub.Mark(id);
  EXPECT_TRUE(bell.WaitUntil([&] {
    size_t count = 0;
    for (auto& [caller, watcher] : watchers) {
      for (const std::string& id : TakeAll(watcher.get())) told[caller].push_back(id);
      std::sort(told[caller].begin(), told[caller].end());
      count += told[caller].size();
    }
    return count >= 7;
  }));
  EXPECT_THAT(told[""], ElementsAre("acme/foo", "other/foo", "zoo"));
  EXPECT_THAT(told["acme"], ElementsAre("acme/foo", "zoo"));
  EXPECT_THAT(told["other"], ElementsAre("other/foo", "zoo"));
}

TEST(AdapterWatchHubTest, ASlowWatcherHoldsEachIdOnce) {
  Bell bell;
  AdapterWatchHub hub;  // its thread rings the bell
  const auto slow = *hub.Add("");
  const auto quick = *hub.Add("");
  quick->SetListener([&bell] { bell.Ring(); });
  for (int round = 0; round < 500; ++round) {
    for (const char* id : {"b", "a", "c"}) hub.Mark(id);
  }
  hub.Mark("last");
  std::set<std::string> seen;
  EXPECT_TRUE(bell.WaitUntil([&] {
    for (const std::string& id : TakeAll(quick.get())) seen.insert(id);
    return seen.contains("last");
  }));
  EXPECT_THAT(TakeAll(slow.get()), ElementsAre("a", "b", "c", "last"));
  EXPECT_THAT(TakeAll(slow.get()), IsEmpty());
}

TEST(AdapterWatchHubTest, CloseEndsAllAndTakesNoMore) {
  Bell bell;
  AdapterWatchHub hub;  // its thread rings the bell
  const auto watcher = *hub.Add("acme");
  watcher->SetListener([&bell] { bell.Ring(); });
  EXPECT_FALSE(watcher->closed());
  hub.Close();
  EXPECT_TRUE(bell.WaitUntil([&] { return watcher->closed(); }));
  const absl::Status late = hub.Add("acme").status();
  EXPECT_TRUE(absl::IsUnavailable(late)) << late;
  EXPECT_EQ(ReasonOf(late), "SHUTTING_DOWN");
  EXPECT_TRUE(GetErrorDetail(late).retry_after.has_value());
}

TEST(AdapterWatchHubTest, ThereIsAnEndToHowManyMayWatch) {
  AdapterWatchHub hub;
  std::vector<std::shared_ptr<Watcher>> watchers;
  for (int i = 0; i < AdapterWatchHub::kMaxWatchers; ++i) watchers.push_back(*hub.Add(""));
  EXPECT_EQ(ReasonOf(hub.Add("").status()), "TOO_MANY_WATCHES");
  hub.Remove(watchers.back());
  EXPECT_TRUE(hub.Add("").ok());
}

TEST(AdapterWatchHubTest, WhoIsRemovedHearsNoMore) {
  Bell bell;
  std::atomic<int> calls = 0;
  AdapterWatchHub hub;  // its thread rings the bell
  const auto gone = *hub.Add("");
  const auto stays = *hub.Add("");
  gone->SetListener([&calls] { ++calls; });
  stays->SetListener([&bell] { bell.Ring(); });
  hub.Remove(gone);
  hub.Mark("a");
  EXPECT_TRUE(bell.WaitUntil([&] { return stays->Take().has_value(); }));
  EXPECT_EQ(calls, 0);
  EXPECT_FALSE(gone->Take().has_value());
}

class AdapterFeedTest : public CatalogTest {
 protected:
  void SetUp() override {
    Open();
    probe_ = *hub_.Add("");
    probe_->SetListener([this] { bell_.Ring(); });
  }

  void Watch(const std::string& caller, std::map<std::string, std::string> labels = {}) {
    feed_ =
        std::make_unique<AdapterFeed>(catalog_.get(), *hub_.Add(caller), caller, std::move(labels));
  }
  // What the watcher is told, once the hub has passed on all that the catalog noted.
  std::vector<std::string> Told() {
    Pass();
    std::vector<std::string> told;
    while (auto event = feed_->Next()) told.push_back(Text(*event));
    return told;
  }
  void Pass() {
    for (const std::string& event : TakeEvents()) {
      if (event.starts_with("changed ")) hub_.Mark(event.substr(8));
    }
    hub_.Mark("no-adapter");
    EXPECT_TRUE(bell_.WaitUntil([this] {
      const std::vector<std::string> ids = TakeAll(probe_.get());
      return std::find(ids.begin(), ids.end(), "no-adapter") != ids.end();
    }));
  }
  static std::string Text(const WatchEvent& event) {
    const auto version = [&event] { return event.info->version->version; };
    switch (event.kind) {
      case WatchEvent::kInitial:
        return fmt::format("initial {}@{}", event.id, version());
      case WatchEvent::kSynced:
        return "synced";
      case WatchEvent::kChanged:
        return fmt::format("changed {}@{}", event.id, version());
      case WatchEvent::kDeleted:
        return "deleted " + event.id;
    }
    return "?";
  }

  Bell bell_;
  AdapterWatchHub hub_;  // its thread rings the bell
  std::shared_ptr<Watcher> probe_;
  std::unique_ptr<AdapterFeed> feed_;
};

TEST_F(AdapterFeedTest, FirstAllThenSyncedThenChanges) {
  Put("b", {.value = 1});
  Put("a", {.value = 2});
  TakeEvents();
  Watch("");
  EXPECT_THAT(Told(), ElementsAre("initial a@1", "initial b@1", "synced"));
  EXPECT_THAT(Told(), IsEmpty());
  Put("c", {.value = 3});
  EXPECT_THAT(Told(), ElementsAre("changed c@1"));
  Put("a", {.value = 4});
  ASSERT_TRUE(catalog_->Delete("", "b", "").ok());
  EXPECT_THAT(Told(), ElementsAre("changed a@2", "deleted b"));
  ASSERT_TRUE(catalog_->Update("", "c", {.description = "x"}, {}, "").ok());
  EXPECT_THAT(Told(), ElementsAre("changed c@1"));
}

TEST_F(AdapterFeedTest, WhatHappensDuringTheFirstListIsNotLost) {
  for (const char* id : {"a", "b", "c"}) Put(id, {.value = static_cast<float>(id[0])});
  TakeEvents();
  Watch("");
  EXPECT_EQ(Text(*feed_->Next()), "initial a@1");
  ASSERT_TRUE(catalog_->Delete("", "a", "").ok());  // listed already
  ASSERT_TRUE(catalog_->Delete("", "b", "").ok());  // not listed yet, and never will be
  Put("c", {.value = 7});
  Put("d", {.value = 8});
  const auto told = Told();
  EXPECT_THAT(told, ElementsAre("initial c@2", "initial d@1", "synced", "deleted a", "changed c@2",
                                "changed d@1"));
}

TEST_F(AdapterFeedTest, ASlowReaderSeesTheLatestStateOnly) {
  Watch("");
  EXPECT_THAT(Told(), ElementsAre("synced"));
  for (int i = 1; i <= 10; ++i) {
    Put("a", {.value = static_cast<float>(i)});
    Pass();
  }
  EXPECT_THAT(Told(), ElementsAre("changed a@10"));
  Put("b", {.value = 1});
  Pass();
  ASSERT_TRUE(catalog_->Delete("", "b", "").ok());
  EXPECT_THAT(Told(), IsEmpty()) << "it never knew of it";
  ASSERT_TRUE(catalog_->Delete("", "a", "").ok());
  Pass();
  Put("a", {.value = 11});
  EXPECT_THAT(Told(), ElementsAre("changed a@11"));
}

TEST_F(AdapterFeedTest, EachIsToldOfWhatItMaySee) {
  Put("foo", {.value = 1});
  Put("acme/foo", {.value = 2});
  TakeEvents();
  Watch("acme");
  EXPECT_THAT(Told(), ElementsAre("initial acme/foo@1", "initial foo@1", "synced"));
  Watch("other");
  EXPECT_THAT(Told(), ElementsAre("initial foo@1", "synced"));
  Put("acme/foo", {.value = 3});
  Put("acme/bar", {.value = 4});
  ASSERT_TRUE(catalog_->Delete("", "acme/foo", "").ok());
  EXPECT_THAT(Told(), IsEmpty());
  Put("foo", {.value = 5});
  EXPECT_THAT(Told(), ElementsAre("changed foo@2"));
}

TEST_F(AdapterFeedTest, LabelsChooseAndALostLabelIsADeletion) {
  const AdapterSettings prod{.labels = {{"stage", "prod"}}};
  Put("a", {.value = 1}, prod);
  Put("b", {.value = 2});
  TakeEvents();
  Watch("", {{"stage", "prod"}});
  EXPECT_THAT(Told(), ElementsAre("initial a@1", "synced"));
  ASSERT_TRUE(catalog_->Update("", "b", {.labels = {{"stage", "test"}}}, {}, "").ok());
  EXPECT_THAT(Told(), IsEmpty());
  ASSERT_TRUE(catalog_->Update("", "b", prod, {}, "").ok());
  ASSERT_TRUE(catalog_->Update("", "a", {}, {}, "").ok());
  EXPECT_THAT(Told(), ElementsAre("deleted a", "changed b@1"));
  ASSERT_TRUE(catalog_->Delete("", "a", "").ok());
  EXPECT_THAT(Told(), IsEmpty()) << "it is told once that it is gone";
}

// Whatever happens, and however slowly the feed is read: at the end it has told what there is.
TEST_F(AdapterFeedTest, TheToldStateConvergesOnTheRealOne) {
  std::mt19937 random(3);
  for (int i = 0; i < 5; ++i) Put(fmt::format("a{}", i), {.value = 1.0f + i});
  TakeEvents();
  Watch("acme");
  std::map<std::string, int64_t> told;
  const auto hear = [&](const WatchEvent& event) {
    if (event.kind == WatchEvent::kDeleted) {
      EXPECT_EQ(told.erase(event.id), 1u) << event.id << " was not known";
    } else if (event.kind != WatchEvent::kSynced) {
      told[event.id] = event.info->version->version;
    }
  };
  for (int round = 0; round < 300; ++round) {
    const std::string name = fmt::format("a{}", random() % 8);
    const std::string id = random() % 2 == 0 ? name : "acme/" + name;
    if (random() % 3 == 0) {
      catalog_->Delete("", id, "").status().IgnoreError();
    } else {
      Put(id, {.value = 100.0f + static_cast<float>(round)});
    }
    if (random() % 4 == 0) Pass();
    for (uint32_t i = random() % 3; i > 0; --i) {
      if (const auto event = feed_->Next(); event.has_value()) hear(*event);
    }
  }
  Pass();
  while (const auto event = feed_->Next()) hear(*event);
  std::map<std::string, int64_t> real;
  for (const AdapterInfo& info : catalog_->List("acme", "", 100)) {
    real[info.id()] = info.version->version;
  }
  EXPECT_EQ(told, real);
}

}  // namespace
}  // namespace lorad
