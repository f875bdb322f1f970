// Adapters come, change and go under traffic: no request fails, and none runs on other weights than
// its answer says.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <utility>

#include "client/error.h"
#include "tests/integration/daemon_process.h"
#include "tests/integration/demo_requests.h"

namespace lorad::integration {
namespace {

using Version = std::pair<std::string, int64_t>;  // name, version

absl::StatusOr<v1::Adapter> Upload(Client* client, const std::string& name, const std::string& demo,
                                   bool replace) {
  return client->UploadAdapter(
      {.adapter_id = name, .directory = DemoAdapterPath(demo), .replace = replace}, nullptr);
}

absl::StatusOr<v1::Adapter> Create(Client* client, const std::string& name, const std::string& demo,
                                   bool replace) {
  v1::CreateAdapterRequest request;
  request.set_adapter_id(name);
  request.set_path(DemoAdapterPath(demo));
  request.set_replace(replace);
  return client->CreateAdapter(request);
}

std::vector<std::string> SomePrompts() {
  std::vector<std::string> prompts;
  for (const std::string& adapter : DemoAdapters())
    prompts.push_back(LoadEval(adapter, 1)[0].prompt);
  return prompts;
}

// Waits until nothing runs; then no page may hold keys and values of a sequence, and of the
// adapters only those of `names` hold any.
void ExpectNothingLeft(Client* client, const std::set<std::string>& names) {
  v1::Pool pool;
  EXPECT_TRUE(Eventually([&] {
    const auto now = client->GetPool(0);
    if (!now.ok()) return false;
    pool = *now;
    std::map<std::string, int> versions;
    bool known = true;
    for (const auto& adapter : pool.adapters()) {
      ++versions[adapter.name()];
      known &= names.contains(adapter.name().substr(std::string("adapters/").size()));
      known &= versions[adapter.name()] == 1;
    }
    return pool.kv_pages() == 0 && known;
  })) << pool.DebugString();
  const auto stats = client->GetStats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->running_requests(), 0);
  EXPECT_EQ(stats->waiting_requests(), 0);
  EXPECT_EQ(stats->failed_total(), 0);
  EXPECT_EQ(pool.total_pages(),
            pool.free_pages() + pool.kv_pages() + pool.kv_cached_pages() + pool.adapter_pages());
}

// Directories of versions under the store.
std::set<std::string> StoredVersions(const DaemonProcess& daemon) {
  std::set<std::string> found;
  const std::filesystem::path root = daemon.state_dir() + "/adapters";
  for (const auto& id : std::filesystem::directory_iterator(root)) {
    for (const auto& version : std::filesystem::directory_iterator(id)) {
      if (version.is_directory()) {
        found.insert(id.path().filename().string() + "/" + version.path().filename().string());
      }
    }
  }
  return found;
}

// ---- Traffic while adapters change ----

// Which demo adapter each version is, as its creator was told.
class Book {
 public:
  void Acknowledge(const v1::Adapter& adapter, const std::string& demo) {
    const std::lock_guard lock(mutex_);
    const std::string name = adapter.name().substr(std::string("adapters/").size());
    contents_[{name, adapter.version()}] = demo;
    newest_[name] = std::max(newest_[name], adapter.version());
  }
  int64_t newest(const std::string& name) const {
    const std::lock_guard lock(mutex_);
    const auto found = newest_.find(name);
    return found == newest_.end() ? 0 : found->second;
  }
  std::string ContentOf(const std::string& name, int64_t version) const {
    const std::lock_guard lock(mutex_);
    const auto found = contents_.find({name, version});
    return found == contents_.end() ? std::string() : found->second;
  }

 private:
  mutable std::mutex mutex_;
  std::map<Version, std::string> contents_;
  std::map<std::string, int64_t> newest_;
};

struct Seen {
  std::string name;
  std::string prompt;
  int64_t newest_before = 0;  // acknowledged when the request was sent
  Answer answer;
};

constexpr char kComesAndGoes[] = "comes-and-goes";

// Asks for the adapters of `names` in turn until `stop`.
void KeepAsking(Client* client, const std::vector<std::string>& names,
                const std::vector<std::string>& prompts, const Book& book, uint64_t seed,
                const std::atomic<bool>& stop, std::vector<Seen>* seen) {
  std::mt19937_64 random(seed);
  while (!stop.load()) {
    Seen one{.name = names[random() % names.size()], .prompt = prompts[random() % prompts.size()]};
    one.newest_before = book.newest(one.name);
    one.answer = Ask(client, GreedyRequest(one.name, one.prompt, 24));
    seen->push_back(std::move(one));
  }
}

// Replaces, deletes and makes adapters again, `rounds` times.
void KeepChanging(Client* client, const std::vector<std::string>& names, int rounds, Book* book) {
  const std::vector<std::string> demos = DemoAdapters();
  for (int round = 0; round < rounds; ++round) {
    const std::string& demo = demos[static_cast<size_t>(round) % demos.size()];
    for (const std::string& name : names) {
      if (name == kComesAndGoes && round % 3 == 1) {
        EXPECT_TRUE(client->DeleteAdapter(name, /*allow_missing=*/false).ok());
        continue;
      }
      const auto made = round % 2 == 0 ? Upload(client, name, demo, /*replace=*/true)
                                       : Create(client, name, demo, /*replace=*/true);
      ASSERT_TRUE(made.ok()) << made.status();
      book->Acknowledge(*made, demo);
    }
  }
}

void CheckSeen(const Seen& seen, const Book& book,
               const std::map<std::pair<std::string, std::string>, Answer>& expected) {
  const Answer& answer = seen.answer;
  if (!answer.status.ok()) {
    EXPECT_EQ(seen.name, kComesAndGoes) << answer.status;
    EXPECT_EQ(answer.status.code(), absl::StatusCode::kNotFound) << answer.status;
    return;
  }
  const std::string demo = book.ContentOf(seen.name, answer.finish.adapter_version());
  ASSERT_FALSE(demo.empty()) << seen.name << " version " << answer.finish.adapter_version();
  EXPECT_GE(answer.finish.adapter_version(), seen.newest_before) << "an old version came back";
  const Answer& right = expected.at({demo, seen.prompt});
  EXPECT_TRUE(answer.SameOutput(right)) << seen.name << " as " << demo << ": \"" << answer.text
                                        << "\" instead of \"" << right.text << "\"";
}

TEST(HotLoadTest, TrafficIsNeverWrongWhileAdaptersChange) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.StartWithDemo(
      {"--adapter-root", SourcePath("demo/adapters"), "--keep-versions", "0"}));
  Client client({.address = daemon.address(), .connections = 2});
  const std::vector<std::string> prompts = SomePrompts();
  std::map<std::pair<std::string, std::string>, Answer> expected;
  for (const std::string& demo : DemoAdapters()) {
    for (const std::string& prompt : prompts) {
      expected[{demo, prompt}] = Ask(&client, GreedyRequest(demo, prompt, 24));
      ASSERT_TRUE(expected.at({demo, prompt}).status.ok());
    }
  }
  const std::vector<std::string> names = {"swapped", "also-swapped", kComesAndGoes};
  Book book;
  KeepChanging(&client, names, 1, &book);

  std::atomic<bool> stop{false};
  std::vector<std::vector<Seen>> seen(8);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < seen.size(); ++i) {
    threads.emplace_back(
        [&, i] { KeepAsking(&client, names, prompts, book, /*seed=*/i, stop, &seen[i]); });
  }
  KeepChanging(&client, names, 30, &book);
  stop.store(true);
  for (std::thread& thread : threads) thread.join();

  std::map<std::string, std::set<int64_t>> versions_seen;
  for (const auto& list : seen) {
    for (const Seen& one : list) {
      CheckSeen(one, book, expected);
      if (one.answer.status.ok())
        versions_seen[one.name].insert(one.answer.finish.adapter_version());
    }
  }
  for (const std::string& name : names) EXPECT_GE(versions_seen[name].size(), 3U) << name;

  std::set<std::string> current(names.begin(), names.end());
  for (const std::string& demo : DemoAdapters()) current.insert(demo);
  ExpectNothingLeft(&client, current);
  EXPECT_TRUE(Eventually([&] { return StoredVersions(daemon).size() == current.size(); }))
      << "versions that nobody can use are still on disk";
  EXPECT_EQ(daemon.Metrics().at("lorad_requests_total{outcome=\"error\"}"), 0);
  EXPECT_EQ(daemon.Terminate().code, 0);
}

// ---- One version at a time ----

class VersionTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(daemon_.Start());
    client_ = std::make_unique<Client>(ClientOptions{.address = daemon_.address()});
    ASSERT_TRUE(Upload(client_.get(), "mine", "pirate", false).ok());
    long_ = LongRequest("mine", LoadEval("pirate", 1)[0].prompt, 400);
    alone_ = Ask(client_.get(), long_);
    ASSERT_TRUE(alone_.status.ok()) << alone_.status;
  }

  // Requests that have begun and have a while to go.
  std::vector<std::unique_ptr<BackgroundAnswer>> StartMany() {
    std::vector<std::unique_ptr<BackgroundAnswer>> running;
    for (int i = 0; i < 48; ++i) {
      running.push_back(std::make_unique<BackgroundAnswer>(client_.get(), long_));
    }
    for (const auto& one : running) EXPECT_TRUE(one->WaitForToken());
    return running;
  }

  void ExpectAllAsAlone(const std::vector<std::unique_ptr<BackgroundAnswer>>& running) {
    for (const auto& one : running) {
      const Answer& answer = one->Wait();
      ASSERT_TRUE(answer.status.ok()) << answer.status;
      EXPECT_EQ(answer.finish.adapter_version(), alone_.finish.adapter_version());
      EXPECT_TRUE(answer.SameOutput(alone_)) << answer.text;
    }
  }

  DaemonProcess daemon_;
  std::unique_ptr<Client> client_;
  v1::GenerateRequest long_;
  Answer alone_;
};

TEST_F(VersionTest, RunningRequestsFinishOnTheVersionThatWasReplaced) {
  const auto running = StartMany();
  const auto replaced = Upload(client_.get(), "mine", "json", true);
  ASSERT_TRUE(replaced.ok()) << replaced.status();
  EXPECT_EQ(replaced->version(), 2);
  EXPECT_FALSE(running.back()->ended()) << "the test did not replace a version in use";
  const Answer next = Ask(client_.get(), GreedyRequest("mine", LoadEval("json", 1)[0].prompt));
  ASSERT_TRUE(next.status.ok()) << next.status;
  EXPECT_EQ(next.finish.adapter_version(), 2);
  EXPECT_EQ(next.text, LoadEval("json", 1)[0].expected);
  ExpectAllAsAlone(running);
  ExpectNothingLeft(client_.get(), {"mine"});
  // Kept for a rollback, until two later versions have replaced it and its successor.
  EXPECT_EQ(StoredVersions(daemon_), (std::set<std::string>{"mine/1", "mine/2"}));
  ASSERT_TRUE(Upload(client_.get(), "mine", "sort", true).ok());
  ASSERT_TRUE(Upload(client_.get(), "mine", "arith", true).ok());
  EXPECT_TRUE(Eventually([&] {
    return StoredVersions(daemon_) == std::set<std::string>{"mine/2", "mine/3", "mine/4"};
  }));
}

TEST_F(VersionTest, RunningRequestsFinishAfterTheirAdapterIsDeleted) {
  const auto running = StartMany();
  const absl::Status deleted = client_->DeleteAdapter("mine", false);
  ASSERT_TRUE(deleted.ok()) << deleted;
  EXPECT_FALSE(running.back()->ended()) << "the test did not delete a version in use";
  const Answer next = Ask(client_.get(), long_);
  EXPECT_EQ(next.status.code(), absl::StatusCode::kNotFound) << next.status;
  EXPECT_EQ(GetErrorDetails(next.status).resource_name, "adapters/mine");
  ExpectAllAsAlone(running);
  ExpectNothingLeft(client_.get(), {});
  EXPECT_TRUE(Eventually([&] { return StoredVersions(daemon_).empty(); }));

  const auto again = Upload(client_.get(), "mine", "sort", false);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->version(), 2) << "version numbers are not used again";
}

// ---- A pool that is too small ----

TEST(SmallPoolTest, EvictionsAndPreemptionsHappenAndChangeNoOutput) {
  const std::vector<std::string> prompts = SomePrompts();
  std::vector<v1::GenerateRequest> requests;
  const std::vector<std::string> demos = DemoAdapters();
  for (size_t i = 0; i < 96; ++i) {
    auto request = LongRequest(demos[i % demos.size()], prompts[i / 8 % prompts.size()], 90);
    request.mutable_sampling()->set_temperature(i % 2 == 0 ? 0.0F : 0.7F);
    request.mutable_sampling()->set_seed(i);
    requests.push_back(request);
  }
  std::vector<Answer> roomy;
  {
    DaemonProcess daemon;
    ASSERT_TRUE(daemon.StartWithDemo());
    Client client({.address = daemon.address()});
    roomy = AskAll(&client, requests, 16);
    EXPECT_EQ(daemon.Metrics().at(R"(lorad_preemptions_total{reason="pages"})"), 0);
    EXPECT_EQ(daemon.Metrics().at("lorad_adapter_evictions_total"), 0);
  }
  for (const std::string admission : {"no-evict", "optimistic", "prompt-only"}) {
    DaemonProcess daemon;
    ASSERT_TRUE(daemon.StartWithDemo({"--pool-bytes", "2560KiB", "--admission", admission}));
    Client client({.address = daemon.address()});
    const std::vector<Answer> tight = AskAll(&client, requests, 48);
    for (size_t i = 0; i < requests.size(); ++i) {
      ASSERT_TRUE(roomy[i].status.ok()) << roomy[i].status;
      ASSERT_TRUE(tight[i].status.ok()) << tight[i].status;
      EXPECT_TRUE(tight[i].SameOutput(roomy[i]))
          << admission << ": " << tight[i].text << "\ninstead of\n"
          << roomy[i].text;
    }
    const auto metrics = daemon.Metrics();
    const double preemptions = metrics.at(R"(lorad_preemptions_total{reason="pages"})");
    EXPECT_TRUE(admission == "no-evict" ? preemptions == 0
                                        : preemptions > 0 || admission == "optimistic")
        << admission << ": " << preemptions;
    EXPECT_GT(metrics.at("lorad_adapter_evictions_total"), 0) << admission;
    EXPECT_GT(metrics.at("lorad_adapter_loads_total{outcome=\"ok\"}"), 8) << admission;
    ExpectNothingLeft(&client, {demos.begin(), demos.end()});
  }
}

// ---- Restarts ----

std::map<std::string, std::string> Listed(Client* client) {
  std::map<std::string, std::string> listed;
  const auto adapters = client->ListAdapters();
  EXPECT_TRUE(adapters.ok()) << adapters.status();
  if (!adapters.ok()) return listed;
  for (const v1::Adapter& a : *adapters) {
    listed[a.name()] = fmt::format("{} {}", a.version(), a.sha256());
  }
  return listed;
}

TEST(RestartTest, WhatWasAcknowledgedIsThereAfterAnOrderlyEnd) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.Start());
  std::map<std::string, std::string> before;
  {
    Client client({.address = daemon.address()});
    for (const char* demo : {"pirate", "json", "sort"}) {
      ASSERT_TRUE(Upload(&client, std::string("a-") + demo, demo, false).ok());
    }
    ASSERT_TRUE(Upload(&client, "a-json", "arith", true).ok());
    ASSERT_TRUE(client.DeleteAdapter("a-sort", false).ok());
    before = Listed(&client);
    EXPECT_EQ(before.size(), 2U);
  }
  EXPECT_EQ(daemon.Terminate().code, 0);
  ASSERT_TRUE(daemon.Start());
  Client client({.address = daemon.address()});
  EXPECT_EQ(Listed(&client), before);
  const EvalCase arith = LoadEval("arith", 1)[0];
  EXPECT_EQ(Ask(&client, GreedyRequest("a-json", arith.prompt)).text, arith.expected);
}

TEST(RestartTest, WhatWasAcknowledgedIsThereAfterAKill) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.Start());
  std::map<std::string, std::string> acknowledged;
  std::set<std::string> deleted;
  for (int life = 0; life < 3; ++life) {
    Client client({.address = daemon.address()});
    std::thread writer([&] {  // until the server dies under it
      for (int i = 0;; ++i) {
        const std::string name = fmt::format("life-{}-{}", life, i);
        const auto made = Upload(&client, name, i % 2 == 0 ? "sentiment" : "opposite", false);
        if (!made.ok()) break;
        acknowledged[made->name()] = fmt::format("{} {}", made->version(), made->sha256());
        if (i % 3 != 2) continue;
        acknowledged.erase(made->name());  // it may be gone even if the answer does not come
        if (!client.DeleteAdapter(name, false).ok()) break;
        deleted.insert(made->name());
      }
    });
    const auto has_some = [&] {
      const auto stats = client.GetStats();
      return stats.ok() && stats->stored_adapters() >= 8 * (life + 1);
    };
    EXPECT_TRUE(Eventually(has_some));
    EXPECT_EQ(daemon.Kill().signal, SIGKILL);
    writer.join();
    ASSERT_TRUE(daemon.Start());
    Client next({.address = daemon.address()});
    const auto listed = Listed(&next);
    for (const auto& [name, what] : acknowledged) {
      ASSERT_TRUE(listed.contains(name)) << name;
      EXPECT_EQ(listed.at(name), what);
    }
    for (const std::string& name : deleted) EXPECT_FALSE(listed.contains(name)) << name;
    EXPECT_LE(listed.size(), acknowledged.size() + static_cast<size_t>(life) + 1);
  }
  EXPECT_GE(acknowledged.size(), 16U);
  EXPECT_FALSE(deleted.empty());
}

}  // namespace
}  // namespace lorad::integration
