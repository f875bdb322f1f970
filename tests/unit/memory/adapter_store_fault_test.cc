// Disk operations that fail: each one in turn, a file size limit, and the order in which things are
// made durable.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cerrno>
#include <csignal>
#include <utility>

#include "memory/adapter_store.h"
#include "memory/base/error_detail.h"
#include "tests/unit/memory/store_fixture.h"
#include "tests/unit/memory/store_script.h"

namespace lorad {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::string Reason(const absl::Status& status) { return GetErrorDetail(status).reason; }

TEST(ErrnoStatus, SaysWhatACallerCanDo) {
  struct Case {
    int error;
    absl::StatusCode code;
    const char* reason;
  };
  for (const Case& c : {Case{ENOSPC, absl::StatusCode::kResourceExhausted, "DISK_FULL"},
                        Case{EDQUOT, absl::StatusCode::kResourceExhausted, "DISK_FULL"},
                        Case{EFBIG, absl::StatusCode::kResourceExhausted, "DISK_FULL"},
                        Case{EROFS, absl::StatusCode::kFailedPrecondition, "STORE_READ_ONLY"},
                        Case{EACCES, absl::StatusCode::kPermissionDenied, "STORE_ACCESS_DENIED"},
                        Case{EMFILE, absl::StatusCode::kUnavailable, "TOO_MANY_OPEN_FILES"},
                        Case{EIO, absl::StatusCode::kUnavailable, "DISK_ERROR"},
                        Case{ELOOP, absl::StatusCode::kDataLoss, "STORE_CORRUPT"},
                        Case{ENOENT, absl::StatusCode::kInternal, "DISK_ERROR"}}) {
    const absl::Status status = ErrnoStatus(c.error, "what");
    EXPECT_EQ(status.code(), c.code);
    EXPECT_EQ(Reason(status), c.reason);
  }
}

// Fails the disk operation number `at` (from 0) of those made after Arm; `failed` tells whether
// there was one.
struct FailAt {
  int at = -1, count = 0, error = EIO;
  bool failed = false;
  std::string operation;
  void Arm(int n, int with) {
    *this = FailAt{.at = n, .count = 0, .error = with, .failed = false, .operation = {}};
  }
  Disk::Hook hook() {
    return [this](std::string_view op, const fs::path& path) {
      if (at < 0 || count++ != at) return 0;
      failed = true;
      operation = fmt::format("{} {}", op, path.filename().string());
      return error;
    };
  }
};

using Action = std::function<absl::Status(AdapterStore&)>;

class StoreFaultTest : public StoreTest {
 protected:
  // Runs `action` with its n-th disk operation failing, for every n. Each time, the adapter "a"
  // holds `before` if the action says that it failed (-1: there is none), else `after`; after a
  // restart also one of the two; and work can go on.
  void FailEach(const Action& prepare, const Action& action, int before, int after) {
    int operations = 0;
    for (int n = 0;; ++n) {
      store_.reset();
      fs::remove_all(root_);
      FailAt fail;
      AdapterStore& store = Open(fail.hook());
      ASSERT_EQ(prepare(store), absl::OkStatus());
      fail.Arm(n, n % 2 == 0 ? EIO : ENOSPC);
      const absl::Status status = action(store);
      fail.at = -1;
      if (!fail.failed) break;
      ++operations;
      SCOPED_TRACE(fmt::format("operation {}: {} -> {}", n, fail.operation, status.ToString()));
      // Leftovers that cannot be deleted are no reason to call a finished thing failed.
      if (!status.ok()) {
        EXPECT_EQ(status.code(), n % 2 == 0 ? absl::StatusCode::kUnavailable
                                            : absl::StatusCode::kResourceExhausted);
        const int now = Seed(store);
        EXPECT_TRUE(now == before || (now == after && fail.operation.starts_with("remove"))) << now;
        EXPECT_THAT(NamesIn(root_ / "staging"), IsEmpty());
      } else {
        EXPECT_EQ(Seed(store), after);
      }
      const int now = Seed(Open());
      EXPECT_TRUE(now == after || (!status.ok() && now == before)) << now;
      EXPECT_THAT(store_->recovery().quarantined, IsEmpty());
      EXPECT_EQ(Put(store_.get(), "a", 99).status(), absl::OkStatus());
      EXPECT_EQ(Seed(*store_), 99);
    }
    EXPECT_GT(operations, 3);
  }

  static int Seed(const AdapterStore& store) { return SeedOf(store, "a"); }
  static absl::Status Nothing(AdapterStore&) { return absl::OkStatus(); }
  static Action PutSeed(int seed) {
    return [seed](AdapterStore& store) { return Put(&store, "a", seed).status(); };
  }
};

TEST_F(StoreFaultTest, ACreateThatFailsLeavesNothing) { FailEach(Nothing, PutSeed(1), -1, 1); }

TEST_F(StoreFaultTest, AReplaceThatFailsLeavesTheOldVersion) {
  FailEach(PutSeed(1), PutSeed(2), 1, 2);
}

TEST_F(StoreFaultTest, ADeleteThatFailsLeavesTheAdapter) {
  FailEach(
      PutSeed(1), [](AdapterStore& store) { return store.Delete("a"); }, 1, -1);
}

TEST_F(StoreFaultTest, ARemoveAllThatFailsLeavesTheAdapterOrNothing) {
  FailEach(
      [](AdapterStore& store) {
        (void)Put(&store, "a", 1);
        return Put(&store, "a", 2).status();
      },
      [](AdapterStore& store) {
        const absl::Status status = store.RemoveAll("a");
        // It is two steps; after the first one the adapter is gone, whatever becomes of the files.
        return Latest(store, "a").ok() ? status : absl::OkStatus();
      },
      2, -1);
}

// A disk that fails `failures` operations in a row, from the number `from` after Begin on.
class Outage {
 public:
  Outage(int from, int failures) : from_(from), until_(from + failures) {}
  Disk::Hook hook() {
    return [this](std::string_view, const fs::path&) {
      const int n = on_ ? count_++ : -1;
      if (n < from_ || n >= until_) return 0;
      came_ = true;
      return n % 2 == 0 ? EIO : ENOSPC;
    };
  }
  bool came() const { return came_; }
  void Begin() { on_ = true; }
  void End() { on_ = false; }

 private:
  const int from_;
  const int until_;
  bool on_ = false;
  int count_ = 0;
  bool came_ = false;
};

class StoreOutageTest : public StoreTest {
 protected:
  // Runs `script` with outages of `failures` operations at every place. A change that fails is
  // tried again until it succeeds; meanwhile the store shows what was acknowledged, and in the end
  // that is what is on disk too. `reopen`: what is on disk is looked at after every failure.
  void OutageAtEveryOperation(const Script& script, int failures, bool reopen) {
    for (int n = 0;; ++n) {
      SCOPED_TRACE(fmt::format("{} failures from operation {}", failures, n));
      store_.reset();
      fs::remove_all(root_);
      Outage outage(n, failures);
      KnownAdapters known;
      int failed = 0;
      AdapterStore& store = Open(outage.hook());
      outage.Begin();
      script(
          &store, [&](const std::string& line) { Read(line, &known); },
          [&](const auto& change) {
            for (absl::Status status = change(); !status.ok(); status = change()) {
              ASSERT_LT(++failed, failures + 2) << status;
              EXPECT_TRUE(absl::IsUnavailable(status) || absl::IsResourceExhausted(status));
              ExpectUnchanged(known);
              if (reopen) CheckOnDisk();
            }
          });
      outage.End();
      const std::string shown = DescribeAll(*store_);
      EXPECT_EQ(DescribeAll(Open()), shown);
      ExpectKnown(*store_, &known);
      ExpectBooksMatchDisk(*store_);
      EXPECT_THAT(store_->recovery().quarantined, IsEmpty());
      if (!outage.came() || HasFailure()) break;
    }
  }

 private:
  void ExpectUnchanged(const KnownAdapters& known) {
    for (const auto& [id, k] : known) EXPECT_EQ(Describe(*store_, id), k.acknowledged) << id;
  }
  // A copy of the store's directory, opened, shows the same.
  void CheckOnDisk() {
    const fs::path copy = directory_ / "copy";
    fs::remove_all(copy);
    fs::copy(root_, copy, fs::copy_options::recursive);
    const auto store = AdapterStore::Open(copy, TestOptions());
    ASSERT_EQ(store.status(), absl::OkStatus());
    EXPECT_EQ(DescribeAll(**store), DescribeAll(*store_));
  }
};

TEST_F(StoreOutageTest, AFailureAnywhereChangesNothingInMemoryNorOnDisk) {
  OutageAtEveryOperation(VersionsComeAndGo, 1, true);
  OutageAtEveryOperation(SettingsChangeAndANameIsUsedAgain, 1, true);
}

TEST_F(StoreOutageTest, WhatCouldNotBeTakenBackIsSettledByTheNextChange) {
  for (const int failures : {2, 4}) {
    OutageAtEveryOperation(VersionsComeAndGo, failures, false);
    OutageAtEveryOperation(SettingsChangeAndANameIsUsedAgain, failures, false);
  }
}

TEST_F(StoreFaultTest, AnOpenThatFailsCanBeTriedAgain) {
  const auto leave_work = [&] {
    Open();
    Put(store_.get(), "a", 1).value();
    Put(store_.get(), "a", 2).value();
    Put(store_.get(), "b", 3).value();
    EXPECT_EQ(store_->Delete("b"), absl::OkStatus());
    store_.reset();
    fs::create_directories(root_ / "staging/1");
    WriteFile(root_ / "adapters/stray", "x");
  };
  leave_work();
  for (int n = 0;; ++n) {
    FailAt fail;
    fail.Arm(n, EIO);
    const absl::Status status = OpenError(TestOptions(fail.hook()));
    if (!fail.failed) break;
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << fail.operation;
    EXPECT_EQ(Seed(Open()), 2);
    EXPECT_FALSE(Latest(*store_, "b").ok());
    leave_work();
  }
}

TEST_F(StoreFaultTest, ACommitThatWasVisibleForAMomentSpendsItsNumber) {
  bool fail_sync = false, fail_undo = false;
  int renames = 0;
  AdapterStore& store = Open([&](std::string_view op, const fs::path& path) {
    if (fail_sync && op == "sync_directory" && path.filename() == "a") return EIO;
    return fail_undo && op == "rename" && ++renames == 2 ? EIO : 0;
  });
  Put(&store, "a", 1).value();
  fail_sync = true;
  EXPECT_EQ(Put(&store, "a", 2).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Seed(store), 1);
  EXPECT_THAT(NamesIn(root_ / "adapters/a"), ElementsAre("1"));

  fail_undo = true;  // now it stays where it is, and is known as a version that nobody uses
  EXPECT_EQ(Put(&store, "a", 3).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Seed(store), 1);
  EXPECT_THAT(NamesIn(root_ / "adapters/a"), ElementsAre("1", "3"));
  fail_sync = fail_undo = false;
  EXPECT_EQ(store.Remove("a", 3), absl::OkStatus());
  EXPECT_EQ(Put(&store, "a", 4)->version, 4);
  EXPECT_EQ(store.RemoveAll("a"), absl::OkStatus());
  EXPECT_EQ(store.stored_bytes(), 0);
}

TEST_F(StoreFaultTest, ANumberThatWasSpentStaysSpentWhenTheAdapterIsDeleted) {
  bool fail = false;
  AdapterStore& store = Open([&](std::string_view op, const fs::path& path) {
    return fail && op == "sync_directory" && path.filename() == "a" ? EIO : 0;
  });
  Put(&store, "a", 1).value();
  fail = true;
  EXPECT_FALSE(Put(&store, "a", 2).ok());  // as version 2
  fail = false;
  EXPECT_EQ(store.RemoveAll("a"), absl::OkStatus());
  EXPECT_EQ(Put(&Open(), "a", 3)->version, 3);
}

TEST_F(StoreFaultTest, AFullDiskFailsTheUploadAndServingGoesOn) {
  const int result = InChild([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    AdapterStore& store = Open();
    if (!Put(&store, "a", 1).ok()) return 1;
    const rlimit limit{100'000, 100'000};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
    const std::vector<DeclaredFile> files = {{std::string(kAdapterConfigFile), 2, ""},
                                             {std::string(kAdapterWeightsFile), 200'000, ""}};
    {
      absl::StatusOr<StagedAdapter> staged = store.Begin(files);
      if (!staged.ok() || !staged->Write(0, 0, "{}").ok()) return 3;
      const absl::Status status = staged->Write(1, 0, std::string(200'000, 'x'));
      if (!absl::IsResourceExhausted(status) || Reason(status) != "DISK_FULL") return 4;
      if (store.Commit(*std::move(staged), "a", Replacing()).status() != status) return 5;
    }
    if (!NamesIn(root_ / "staging").empty()) return 6;
    if (Seed(store) != 1 || !Put(&store, "a", 2).ok() || Seed(store) != 2) return 7;
    return 0;
  });
  EXPECT_EQ(result, 0);
}

TEST_F(StoreFaultTest, EverythingIsSyncedBeforeItIsVisibleAndBeforeItIsAcknowledged) {
  std::vector<std::string> trace;
  bool on = false;
  AdapterStore& store = Open([&](std::string_view op, const fs::path& path) {
    if (on && (op.starts_with("sync") || op == "rename" || op == "link")) {
      const fs::path below = path.lexically_relative(root_);
      // Numbers and hashes are accidents.
      std::string name = below.string();
      if (name.starts_with("blobs/")) name = "blobs/H";
      if (name.starts_with("staging/")) {
        name = path.has_extension() ? "staging/N/" + path.filename().string() : "staging/N";
      }
      trace.push_back(fmt::format("{} {}", op, name));
    }
    return 0;
  });
  on = true;
  const auto take = [&] { return std::exchange(trace, {}); };
  const std::vector<std::string> shown = {"sync staging/N/manifest.json",
                                          "sync_directory staging/N", "rename staging/N",
                                          "sync_directory adapters/a"};
  const auto then_shown = [&](std::vector<std::string> before, const char* last = nullptr) {
    before.insert(before.end(), shown.begin(), shown.end());
    if (last != nullptr) before.push_back(last);
    return before;
  };
  Put(&store, "a", 1).value();
  EXPECT_EQ(take(),
            then_shown({"sync staging/N/adapter_config.json",
                        "sync staging/N/adapter_model.safetensors", "link blobs/H", "link blobs/H"},
                       "sync_directory adapters"));
  Put(&store, "a", 1).value();  // the bytes are there
  EXPECT_EQ(take(), then_shown({"sync staging/N/adapter_config.json",
                                "sync staging/N/adapter_model.safetensors",
                                "link staging/N/adapter_config.json.link",
                                "rename staging/N/adapter_config.json.link",
                                "link staging/N/adapter_model.safetensors.link",
                                "rename staging/N/adapter_model.safetensors.link"}));
  store.Rollback("a", 1).value();
  EXPECT_EQ(take(), then_shown({"link staging/N/adapter_config.json",
                                "link staging/N/adapter_model.safetensors"}));
  const auto replaced =
      ElementsAre("sync staging/N", "rename staging/N", "sync_directory adapters/a");
  store.UpdateSettings("a", "s").value();
  EXPECT_THAT(take(), replaced);
  EXPECT_EQ(store.Delete("a"), absl::OkStatus());
  EXPECT_THAT(take(), replaced);
  // A damaged blob may not come back when its version is gone.
  EXPECT_EQ(store.Quarantine("a", 1), absl::OkStatus());
  EXPECT_THAT(take(), ElementsAre("sync_directory blobs", "rename adapters/a/1",
                                  "sync_directory adapters/a"));
}

}  // namespace
}  // namespace lorad
