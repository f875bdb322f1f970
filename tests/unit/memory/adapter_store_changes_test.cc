// What happens to an adapter over its life: versions that are kept and come back, settings,
// compare-and-swap, owners and their limits.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "memory/adapter_store.h"
#include "memory/base/error_detail.h"
#include "tests/unit/memory/store_fixture.h"

namespace lorad {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Reason(const absl::Status& status) { return GetErrorDetail(status).reason; }

CommitOptions WithSettings(std::string settings) {
  CommitOptions options = Replacing();
  options.settings = std::move(settings);
  return options;
}

std::vector<int64_t> KeptOf(const StoredAdapter& adapter) {
  std::vector<int64_t> numbers;
  for (const StoredVersion& version : adapter.kept) numbers.push_back(version.version);
  return numbers;
}

TEST_F(StoreTest, ATenantsAdapterLiesInADirectoryOfItsOwnName) {
  AdapterStore& store = Open();
  Put(&store, "acme/foo", 1).value();
  Put(&store, "foo", 2).value();
  Put(&store, "other/foo", 3).value();
  EXPECT_THAT(NamesIn(root_ / "adapters"), ElementsAre("acme~foo", "foo", "other~foo"));
  AdapterStore& again = Open();
  EXPECT_EQ(SeedOf(again, "acme/foo"), 1);
  EXPECT_EQ(SeedOf(again, "foo"), 2);
  EXPECT_EQ(SeedOf(again, "other/foo"), 3);
  EXPECT_EQ(again.PathOf(again.Get("acme/foo")->current), root_ / "adapters/acme~foo/1");
  EXPECT_EQ(again.Delete("acme/foo"), absl::OkStatus());
  const std::string all = DescribeAll(again);
  EXPECT_EQ(DescribeAll(Open()), all);
  EXPECT_EQ(SeedOf(*store_, "acme/foo"), -1);
  EXPECT_EQ(SeedOf(*store_, "foo"), 2);
}

TEST_F(StoreTest, SupersededVersionsAreKeptNewestFirstAlsoAcrossARestart) {
  AdapterStore& store = Open();
  for (int seed = 1; seed <= 4; ++seed) {
    CommitOptions options = Replacing();
    options.facts = fmt::format("facts {}", seed);
    Put(&store, "a", seed, options).value();
  }
  const StoredAdapter before = store.Get("a").value();
  EXPECT_THAT(KeptOf(before), ElementsAre(3, 2));
  EXPECT_THAT(store.Lingering("a"), ElementsAre(1));
  ExpectBooksMatchDisk(store);

  AdapterStore& again = Open();
  EXPECT_EQ(again.recovery().superseded, 1);  // nobody can be running on version 1 any more
  const StoredAdapter after = again.Get("a").value();
  EXPECT_THAT(KeptOf(after), ElementsAre(3, 2));
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(after.kept[i].facts, before.kept[i].facts);
    EXPECT_EQ(after.kept[i].create_time, before.kept[i].create_time);
    EXPECT_EQ(after.kept[i].config.inode, before.kept[i].config.inode);
    EXPECT_EQ(SeedOf(again, after.kept[i]), static_cast<int>(3 - i));
  }
  EXPECT_THAT(again.Lingering("a"), IsEmpty());
  ExpectBooksMatchDisk(again);
}

TEST_F(StoreTest, FewerVersionsAreKeptIfFewerAreWanted) {
  keep_versions_ = 3;
  Open();
  for (int seed = 1; seed <= 5; ++seed) Put(store_.get(), "a", seed).value();
  keep_versions_ = 1;
  EXPECT_THAT(KeptOf(Open().Get("a").value()), ElementsAre(4));
  EXPECT_THAT(NamesIn(root_ / "adapters/a"), ElementsAre("4", "5"));
  keep_versions_ = 0;
  EXPECT_THAT(KeptOf(Open().Get("a").value()), IsEmpty());
  EXPECT_THAT(NamesIn(root_ / "adapters/a"), ElementsAre("5"));
  ExpectBooksMatchDisk(*store_);
}

TEST_F(StoreTest, RollbackMakesANewVersionOfTheKeptOnesFilesAndFacts) {
  AdapterStore& store = Open();
  for (int seed = 1; seed <= 3; ++seed) {
    CommitOptions options = WithSettings(fmt::format("settings {}", seed));
    options.facts = fmt::format("facts {}", seed);
    Put(&store, "a", seed, options).value();
  }
  const StoredAdapter before = store.Get("a").value();
  const int64_t bytes_on_disk = store.stored_bytes();

  const StoredAdapter first = store.Rollback("a", 1).value();
  EXPECT_EQ(first.current.version, 4);
  EXPECT_EQ(first.current.origin_version, 1);
  EXPECT_EQ(first.current.facts, "facts 1");
  EXPECT_EQ(first.current.weights.inode, before.kept[1].weights.inode);
  EXPECT_GE(first.current.create_time, before.current.create_time);
  EXPECT_EQ(first.settings, "settings 3");  // settings do not go back
  EXPECT_EQ(first.revision, before.revision + 1);
  EXPECT_THAT(KeptOf(first), ElementsAre(3, 2));
  EXPECT_THAT(store.Lingering("a"), ElementsAre(1));
  EXPECT_EQ(store.stored_bytes(), bytes_on_disk);  // links
  EXPECT_EQ(SeedOf(store, "a"), 1);
  EXPECT_EQ(store.Remove("a", 1), absl::OkStatus());
  EXPECT_EQ(SeedOf(store, "a"), 1);  // its files are its own

  const StoredAdapter second = store.Rollback("a", 0).value();  // undoes the rollback
  EXPECT_EQ(second.current.version, 5);
  EXPECT_EQ(second.current.origin_version, 3);
  EXPECT_EQ(SeedOf(store, "a"), 3);
  ExpectBooksMatchDisk(store);

  const StoredAdapter after = Open().Get("a").value();
  EXPECT_EQ(after.current.version, 5);
  EXPECT_EQ(after.current.origin_version, 3);
  EXPECT_EQ(after.kept[0].origin_version, 1);
  EXPECT_EQ(Describe(*store_, "a"), Describe(3, {1, 3}, "settings 3", 5, "facts 3"));
}

TEST_F(StoreTest, RollbackGoesOnlyToWhatIsKept) {
  AdapterStore& store = Open();
  EXPECT_EQ(Reason(store.Rollback("a", 0).status()), "ADAPTER_NOT_FOUND");
  Put(&store, "a", 1).value();
  const absl::Status nothing = store.Rollback("a", 0).status();
  EXPECT_EQ(nothing.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Reason(nothing), "VERSION_NOT_FOUND");
  EXPECT_EQ(GetErrorDetail(nothing).resource_name, "adapters/a");
  for (int seed = 2; seed <= 4; ++seed) Put(&store, "a", seed).value();
  for (const int64_t version : {1, 4, 5, -1}) {  // lingering, current, never there
    const absl::Status status = store.Rollback("a", version).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(Reason(status), "VERSION_NOT_FOUND");
    EXPECT_EQ(GetErrorDetail(status).resource_name, fmt::format("adapters/a@{}", version));
  }
  EXPECT_EQ(store.Delete("a"), absl::OkStatus());
  EXPECT_EQ(Reason(store.Rollback("a", 3).status()), "ADAPTER_NOT_FOUND");
  EXPECT_THAT(NamesIn(root_ / "staging"), IsEmpty());
}

TEST_F(StoreTest, RollbackToDamagedFilesIsDataLossAndChangesNothing) {
  AdapterStore& store = Open();
  const StoredVersion first = Put(&store, "a", 1).value();
  Put(&store, "a", 2).value();
  const std::string before = Describe(store, "a");
  fs::resize_file(store.PathOf(first) / kAdapterWeightsFile, 10);
  EXPECT_EQ(Reason(store.Rollback("a", 1).status()), "ADAPTER_CORRUPT");
  fs::remove(store.PathOf(first) / kAdapterWeightsFile);
  EXPECT_EQ(Reason(store.Rollback("a", 1).status()), "ADAPTER_CORRUPT");
  fs::create_symlink("/etc/passwd", store.PathOf(first) / kAdapterWeightsFile);
  EXPECT_EQ(Reason(store.Rollback("a", 1).status()), "ADAPTER_CORRUPT");
  EXPECT_EQ(store.Get("a")->current.version, 2);
  EXPECT_EQ(SeedOf(store, "a"), 2);
  EXPECT_THAT(NamesIn(root_ / "staging"), IsEmpty());
}

TEST_F(StoreTest, SettingsOutliveVersionsAndRestartsAndEachChangeHasARevision) {
  AdapterStore& store = Open();
  EXPECT_EQ(Reason(store.UpdateSettings("a", "x").status()), "ADAPTER_NOT_FOUND");
  Put(&store, "a", 1).value();
  EXPECT_EQ(Describe(store, "a"), Describe(1, {}, "", 1));
  EXPECT_EQ(store.UpdateSettings("a", "{\"x\": \"\xc3\xa9\"}")->revision, 2);
  EXPECT_EQ(Describe(Open(), "a"), Describe(1, {}, "{\"x\": \"\xc3\xa9\"}", 2));
  Put(store_.get(), "a", 2).value();  // says nothing of settings
  EXPECT_EQ(Describe(Open(), "a"), Describe(2, {1}, "{\"x\": \"\xc3\xa9\"}", 3));
  Put(store_.get(), "a", 3, WithSettings("new")).value();
  EXPECT_EQ(Describe(Open(), "a"), Describe(3, {2, 1}, "new", 4));  // not those of the older file
  EXPECT_EQ(store_->UpdateSettings("a", "newer")->settings, "newer");
  EXPECT_EQ(store_->UpdateSettings("a", "")->revision, 6);
  EXPECT_EQ(Describe(Open(), "a"), Describe(3, {2, 1}, "", 6));
  EXPECT_EQ(store_->UpdateSettings("a", "last")->current.version, 3);
  EXPECT_EQ(store_->Rollback("a", 0)->settings, "last");
  EXPECT_EQ(Describe(Open(), "a"), Describe(2, {3, 2}, "last", 8));
}

TEST_F(StoreTest, SettingsOfADeletedAdapterDoNotComeBackWithItsName) {
  AdapterStore& store = Open();
  Put(&store, "a", 1).value();
  for (int i = 0; i < 5; ++i) store.UpdateSettings("a", "secret").value();
  const std::string file = ReadFile(root_ / "adapters/a/settings");
  EXPECT_EQ(store.Delete("a"), absl::OkStatus());
  EXPECT_FALSE(fs::exists(root_ / "adapters/a/settings"));
  // Its removal was not synced: after a power cut it may be there again, with a great revision.
  const auto bring_back = [&] { WriteFile(root_ / "adapters/a/settings", file); };
  bring_back();
  EXPECT_EQ(Describe(Open(), "a"), "none");
  EXPECT_FALSE(fs::exists(root_ / "adapters/a/settings"));
  Put(store_.get(), "a", 2).value();
  bring_back();
  EXPECT_EQ(Describe(Open(), "a"), Describe(2, {}, "", 1));
  EXPECT_FALSE(fs::exists(root_ / "adapters/a/settings"));
  EXPECT_THAT(store_->recovery().quarantined, IsEmpty());
}

TEST_F(StoreTest, TextsMustBeUtf8AndNotTooLong) {
  AdapterStore& store = Open();
  const auto commit = [&](const char* id, std::string facts, std::string settings) {
    CommitOptions options = WithSettings(std::move(settings));
    options.facts = std::move(facts);
    return Put(&store, id, 1, options).status();
  };
  const auto expect_field = [](const absl::Status& status, const char* field) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(GetErrorDetail(status).field, field);
  };
  const std::string long_facts(kMaxFactsBytes, '\0'), long_settings(kMaxSettingsBytes, '\n');
  expect_field(commit("a", long_facts + "x", ""), "facts");
  expect_field(commit("a", "\xff", ""), "facts");
  expect_field(commit("a", "", long_settings + "x"), "settings");
  expect_field(commit("a", "", "caf\xc3"), "settings");
  EXPECT_EQ(Describe(store, "a"), "none");
  EXPECT_EQ(commit("a", long_facts, long_settings), absl::OkStatus());
  expect_field(store.UpdateSettings("a", long_settings + "x").status(), "settings");
  expect_field(store.UpdateSettings("a", "\xc0\x80").status(), "settings");
  EXPECT_EQ(Describe(Open(), "a"), Describe(1, {}, long_settings, 1, long_facts));
  EXPECT_TRUE(store_->UpdateSettings("a", std::string(kMaxSettingsBytes, '\x1f')).ok());
  EXPECT_EQ(Open().Get("a")->settings, std::string(kMaxSettingsBytes, '\x1f'));
}

TEST_F(StoreTest, AChangeOfWhatIsNotAsExpectedIsAborted) {
  AdapterStore& store = Open();
  Put(&store, "acme/a", 1).value();
  const auto try_all = [&](const Expected& expected) {
    CommitOptions options = Replacing();
    options.expected = expected;
    return std::vector<absl::Status>{
        Put(&store, "acme/a", 9, options).status(), store.Rollback("acme/a", 0, expected).status(),
        store.UpdateSettings("acme/a", "s", expected).status(), store.Delete("acme/a", expected)};
  };
  const auto expect_aborted = [&](const Expected& expected) {
    const std::string before = Describe(store, "acme/a");
    for (const absl::Status& status : try_all(expected)) {
      EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
      EXPECT_EQ(Reason(status), "ETAG_MISMATCH");
      EXPECT_EQ(GetErrorDetail(status).resource_name, "adapters/acme/a");
    }
    EXPECT_EQ(Describe(store, "acme/a"), before);
  };
  for (const Expected& wrong : {Expected{1, 2}, Expected{2, 1}, Expected{0, 0}, Expected{1, 0}}) {
    expect_aborted(wrong);
  }
  EXPECT_EQ(store.UpdateSettings("acme/a", "s", Expected{1, 1})->revision, 2);
  expect_aborted({1, 1});
  CommitOptions options = Replacing();
  options.expected = Expected{1, 2};
  EXPECT_EQ(Put(&store, "acme/a", 2, options)->current.version, 2);
  expect_aborted({1, 2});
  EXPECT_EQ(store.Rollback("acme/a", 1, Expected{2, 3})->current.version, 3);
  options.expected = Expected{3, 4};
  options.if_exists = IfExists::kRefuse;
  EXPECT_EQ(Reason(Put(&store, "acme/a", 2, options).status()), "ADAPTER_EXISTS");
  EXPECT_EQ(store.Delete("acme/a", Expected{3, 4}), absl::OkStatus());
  expect_aborted({3, 4});  // it is gone
  // An adapter of the same name is another one.
  Put(&store, "acme/a", 5).value();
  expect_aborted({1, 1});
  // What is no id is not repeated.
  const absl::Status status = store.UpdateSettings("A\n", "s", Expected{1, 1}).status();
  EXPECT_EQ(Reason(status), "ADAPTER_NOT_FOUND");
  EXPECT_THAT(std::string(status.message()), ::testing::Not(HasSubstr("A\n")));
}

TEST_F(StoreTest, OfManyThatExpectTheSameOneWins) {
  AdapterStore& store = Open();
  Put(&store, "a", 0).value();
  constexpr int kThreads = 4, kRounds = 20;
  std::atomic<int> won{0}, lost{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < kRounds; ++round) {
        const Expected expected{1, round + 1};
        while (store.Get("a")->revision < expected.revision) std::this_thread::yield();
        const absl::Status status =
            store.UpdateSettings("a", fmt::format("{} of {}", round, t), expected).status();
        ++(status.ok() ? won : lost);
        EXPECT_TRUE(status.ok() || Reason(status) == "ETAG_MISMATCH") << status;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(won, kRounds);
  EXPECT_EQ(lost, kRounds * (kThreads - 1));
  EXPECT_EQ(store.Get("a")->revision, kRounds + 1);
}

TEST_F(StoreTest, AnOwnersUsageIsOfAllItsVersionsAndNotOfFilesThatOthersHaveToo) {
  AdapterStore& store = Open();
  const auto bytes = [](int seed) {
    return static_cast<int64_t>(ConfigOf(seed).size() + WeightsOf(seed).size());
  };
  const auto expect = [&](const char* owner, int64_t adapters, int64_t used) {
    EXPECT_EQ(store.OwnerUsage(owner).adapters, adapters) << owner;
    EXPECT_EQ(store.OwnerUsage(owner).bytes, used) << owner;
  };
  Put(&store, "a/x", 1).value();
  Put(&store, "a/y", 1).value();  // the same bytes, counted again
  Put(&store, "b/x", 1).value();
  Put(&store, "x", 2).value();
  expect("a", 2, 2 * bytes(1));
  expect("b", 1, bytes(1));
  expect("", 1, bytes(2));
  expect("nobody", 0, 0);
  EXPECT_EQ(store.stored_bytes(), bytes(1) + bytes(2));
  EXPECT_EQ(store.UsageByOwner().size(), 3u);

  for (int seed = 2; seed <= 4; ++seed) Put(&store, "b/x", seed).value();
  expect("b", 1, bytes(1) + bytes(2) + bytes(3) + bytes(4));  // version 1 lingers
  EXPECT_EQ(store.Remove("b/x", 1), absl::OkStatus());
  expect("b", 1, bytes(2) + bytes(3) + bytes(4));
  EXPECT_EQ(store.Delete("b/x"), absl::OkStatus());
  expect("b", 0, bytes(2) + bytes(3) + bytes(4));
  EXPECT_EQ(store.RemoveAll("b/x"), absl::OkStatus());
  expect("b", 0, 0);
  EXPECT_EQ(store.UsageByOwner().size(), 2u);
  ExpectBooksMatchDisk(store);
}

TEST_F(StoreTest, LimitsOfAnOwnerAndOfTheServerAreKept) {
  AdapterStore& store = Open();
  const auto commit = [&](const char* id, int seed, CommitOptions options) {
    options.if_exists = IfExists::kReplace;
    const absl::Status status = Put(&store, id, seed, options).status();
    if (!status.ok()) {
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    }
    EXPECT_THAT(NamesIn(root_ / "staging"), IsEmpty());
    return Reason(status);
  };
  CommitOptions two;
  two.owner_max_adapters = 2;
  EXPECT_EQ(commit("a/1", 1, two), "");
  EXPECT_EQ(commit("a/2", 1, two), "");
  EXPECT_EQ(commit("a/3", 1, two), "TENANT_TOO_MANY_ADAPTERS");
  EXPECT_EQ(commit("a/2", 2, two), "");  // no new one
  EXPECT_EQ(commit("b/1", 1, two), "");
  CommitOptions three;
  three.max_adapters = 3;
  EXPECT_EQ(commit("b/2", 1, three), "TOO_MANY_ADAPTERS");
  EXPECT_EQ(commit("b/1", 2, three), "");
  EXPECT_EQ(store.Delete("a/1"), absl::OkStatus());
  EXPECT_EQ(commit("b/2", 1, three), "");
  EXPECT_EQ(commit("a/3", 1, two), "");

  const int64_t size = static_cast<int64_t>(ConfigOf(7).size() + WeightsOf(7).size());
  CommitOptions bytes;
  bytes.owner_max_bytes = 2 * size;
  EXPECT_EQ(commit("c/1", 7, bytes), "");
  EXPECT_EQ(commit("c/1", 7, bytes), "");  // the version before is kept, and counts
  EXPECT_EQ(commit("c/1", 7, bytes), "TENANT_BYTES_EXCEEDED");
  EXPECT_EQ(store.Delete("c/1"), absl::OkStatus());
  EXPECT_EQ(commit("c/2", 7, bytes), "TENANT_BYTES_EXCEEDED");  // lingering ones count too
  EXPECT_EQ(store.Remove("c/1", 1), absl::OkStatus());
  EXPECT_EQ(commit("c/2", 7, bytes), "");
  EXPECT_EQ(commit("d/1", 7, bytes), "");  // owners have nothing to do with each other
  bytes.owner_max_bytes = size - 1;
  EXPECT_EQ(commit("public", 7, bytes), "TENANT_BYTES_EXCEEDED");
  ExpectBooksMatchDisk(store);
}

TEST_F(StoreTest, ConcurrentCommitsDoNotPassALimitTogether) {
  AdapterStore& store = Open();
  constexpr int kThreads = 8;
  const auto race = [&](const CommitOptions& options, const char* owner) {
    std::atomic<int> accepted{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        const absl::Status status =
            Put(&store, fmt::format("{}/{}", owner, t), 7 * t, options).status();
        accepted += status.ok();
        EXPECT_TRUE(status.ok() || absl::IsResourceExhausted(status)) << status;
      });
    }
    for (std::thread& thread : threads) thread.join();
    return accepted.load();
  };
  CommitOptions options;
  options.owner_max_adapters = 3;
  EXPECT_EQ(race(options, "a"), 3);
  options = {};
  options.max_adapters = 5;
  EXPECT_EQ(race(options, "b"), 2);
  options = {};
  options.owner_max_bytes = 4 * static_cast<int64_t>(ConfigOf(49).size() + WeightsOf(49).size());
  EXPECT_EQ(race(options, "c"), 4);
  EXPECT_LE(store.OwnerUsage("c").bytes, options.owner_max_bytes);
  ExpectBooksMatchDisk(store);
}

TEST_F(StoreTest, AnUploadCanBeComparedWithWhatIsStored) {
  AdapterStore& store = Open();
  const StoredVersion stored = Put(&store, "a", 1).value();
  const StagedAdapter same = Stage(&store, 1).value(), other = Stage(&store, 2).value();
  ASSERT_EQ(same.CheckComplete(), absl::OkStatus());
  EXPECT_EQ(same.config().sha256, stored.config.sha256);
  EXPECT_EQ(same.weights().sha256, stored.weights.sha256);
  EXPECT_EQ(same.weights().bytes, stored.weights.bytes);
  EXPECT_NE(other.weights().sha256, stored.weights.sha256);
  EXPECT_NE(other.config().sha256, stored.config.sha256);
}

TEST_F(StoreTest, QuarantineOfAKeptVersionLeavesTheAdapter) {
  AdapterStore& store = Open();
  for (int seed = 1; seed <= 3; ++seed) Put(&store, "acme/a", seed).value();
  EXPECT_EQ(store.Quarantine("acme/a", 2), absl::OkStatus());
  EXPECT_THAT(NamesIn(root_ / "quarantine"), ElementsAre("acme~a.2"));
  EXPECT_EQ(Describe(store, "acme/a"), Describe(3, {1}, "", 3));
  EXPECT_EQ(Reason(store.Rollback("acme/a", 2).status()), "VERSION_NOT_FOUND");
  ExpectBooksMatchDisk(store);
  EXPECT_EQ(Describe(Open(), "acme/a"), Describe(3, {1}, "", 3));
}

TEST_F(StoreTest, QuarantineOfTheCurrentVersionBringsNoneBack) {
  AdapterStore& store = Open();
  for (int seed = 1; seed <= 3; ++seed) Put(&store, "a", seed).value();
  EXPECT_EQ(store.Quarantine("a", 3), absl::OkStatus());
  EXPECT_EQ(Describe(store, "a"), "none");
  EXPECT_THAT(store.Lingering("a"), ElementsAre(1, 2));  // somebody may run on them
  EXPECT_EQ(store.Quarantine("a", 1), absl::OkStatus());
  EXPECT_EQ(Reason(store.Quarantine("a", 3)), "VERSION_NOT_FOUND");
  ExpectBooksMatchDisk(store);
  EXPECT_EQ(Describe(Open(), "a"), "none");
  EXPECT_THAT(NamesIn(root_ / "quarantine"), ElementsAre("a.1", "a.3"));
  EXPECT_EQ(Put(store_.get(), "a", 4)->version, 4);
}

}  // namespace
}  // namespace lorad
