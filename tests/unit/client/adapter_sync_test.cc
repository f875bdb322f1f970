// loractl adapters sync: what it prints, how it ends, and how it goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <thread>

#include "client/loractl/stop_signal.h"
#include "client/loractl/sync_settings.h"
#include "tests/unit/client/run_loractl.h"
#include "tests/unit/client/scratch_directory.h"

namespace lorad::loractl {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::HasSubstr;

class AdapterSyncTest : public LoractlTest {
 protected:
  std::string Directory() const { return scratch_.path().string(); }
  ScratchDirectory scratch_;
};

TEST_F(AdapterSyncTest, PrintsATableAndCounts) {
  scratch_.WriteAdapter("pirate", "w");
  const Outcome first = Run({"adapters", "sync", Directory()});
  EXPECT_EQ(first.code, kOk) << first.err;
  EXPECT_EQ(first.out,
            "NAME    VERSION  RESULT   REASON\n"
            "pirate        1  created\n"
            "1 created, 0 replaced, 0 updated, 0 unchanged, 0 deleted, 0 conflict, 0 failed\n");
  EXPECT_THAT(Run({"adapters", "sync", Directory()}).out, HasSubstr("1 unchanged"));
}

TEST_F(AdapterSyncTest, ExitCodeIsTheFirstFailures) {
  scratch_.WriteAdapter("bad", "w");
  scratch_.Write("bad/lorad.json", R"({"pined": true})");
  scratch_.WriteAdapter("good", "w");
  const Outcome r = Run({"adapters", "sync", Directory()});
  EXPECT_EQ(r.code, kUsage);
  EXPECT_THAT(r.out, AllOf(HasSubstr("lorad.json: \"pined\""), HasSubstr("created"),
                           HasSubstr("1 created"), HasSubstr("1 failed")));
  server_.adapters.Seed("adapters/good", {}, "c", "w");  // no label: not ours
  std::filesystem::remove(scratch_.path() / "bad" / "lorad.json");
  const Outcome conflict = Run({"adapters", "sync", Directory()});
  EXPECT_EQ(conflict.code, kRefused);
  EXPECT_THAT(conflict.out, AllOf(HasSubstr("1 conflict"), HasSubstr("--adopt")));
  EXPECT_EQ(Run({"adapters", "sync", Directory(), "--adopt"}).code, kOk);
}

TEST_F(AdapterSyncTest, DryRunAndJson) {
  scratch_.WriteAdapter("pirate", "w");
  const Outcome dry = Run({"adapters", "sync", Directory(), "--dry-run"});
  EXPECT_THAT(dry.out, AllOf(HasSubstr("WOULD BE"), HasSubstr("nothing was done")));
  EXPECT_FALSE(server_.adapters.Find("adapters/pirate").has_value());
  EXPECT_EQ(Run({"adapters", "sync", Directory(), "--json", "--source", "ci"}).out,
            R"({"name":"adapters/pirate","action":"created","version":1,"reason":"",)"
            R"("dry_run":false})"
            "\n");
  EXPECT_EQ(server_.adapters.Find("adapters/pirate")->settings().labels().at(kManagedLabel), "ci");
}

TEST_F(AdapterSyncTest, UsageErrorsAndOutages) {
  EXPECT_EQ(Run({"adapters", "sync", Directory() + "/gone"}).code, kUsage);
  EXPECT_EQ(Run({"adapters", "sync", Directory(), "--watch", "1", "--dry-run"}).code, kUsage);
  EXPECT_EQ(Run({"adapters", "sync", Directory(), "--source", ""}).code, kUsage);
  EXPECT_EQ(Run({"adapters", "sync", Directory(), "--address", "127.0.0.1:1"}).code, kUnavailable);
}

TEST_F(AdapterSyncTest, ATenantsDirectoryIsItsOwn) {
  scratch_.WriteAdapter("pirate", "w");
  EXPECT_EQ(Run({"--tenant", "acme", "adapters", "sync", Directory()}).code, kOk);
  EXPECT_TRUE(server_.adapters.Find("adapters/acme/pirate").has_value());
}

// Waits for something that the other thread does; the test's own timeout is the limit.
void Await(const std::function<bool()>& done) {
  while (!done()) std::this_thread::sleep_for(milliseconds(1));
}

TEST_F(AdapterSyncTest, WatchGoesOnUntilASignalAndPrintsChangesOnly) {
  scratch_.WriteAdapter("pirate", "w");
  scratch_.Write("bad/adapter_config.json", "{}");
  std::atomic<int> lists{0};
  std::atomic<bool> down{false};
  server_.adapters.before_list = [&] {
    ++lists;
    return down ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "restarting") : grpc::Status::OK;
  };
  const auto rounds = [&lists](int more) {
    const int before = lists;
    Await([&lists, before, more] { return lists >= before + more; });
  };
  Outcome r;
  std::thread sidecar([&] {
    r = Run({"adapters", "sync", Directory(), "--prune", "--watch", "0.005"});
  });
  Await([&] { return server_.adapters.Find("adapters/pirate").has_value(); });
  rounds(2);  // nothing new: nothing is printed
  down = true;
  rounds(3);
  scratch_.WriteAdapter("later", "w");
  down = false;
  Await([&] { return server_.adapters.Find("adapters/later").has_value(); });
  std::filesystem::remove_all(scratch_.path() / "pirate");
  Await([&] { return !server_.adapters.Find("adapters/pirate").has_value(); });
  rounds(2);
  kill(getpid(), SIGTERM);
  sidecar.join();
  EXPECT_EQ(r.code, kOk);
  EXPECT_EQ(r.out,
            "failed    bad: NOT_FOUND: adapter_model.safetensors: not there\n"
            "created   pirate version 1\n"
            "created   later version 1\n"
            "deleted   pirate\n");
  const size_t outage = r.err.find("restarting");
  EXPECT_NE(outage, std::string::npos);
  EXPECT_EQ(r.err.find("restarting", outage + 1), std::string::npos) << "said twice";
  EXPECT_THAT(r.err, HasSubstr("sync goes on"));
}

TEST(StopSignalTest, WaitsUntilTheTimeIsOverOrASignalCame) {
  const StopSignal stop;
  EXPECT_FALSE(stop.Wait(milliseconds(1)));
  raise(SIGINT);
  EXPECT_TRUE(stop.Wait(std::chrono::hours(1)));
  EXPECT_TRUE(stop.Wait(milliseconds(0)));
}

TEST(StopSignalTest, TheSecondSignalEndsTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const StopSignal stop;
        raise(SIGTERM);
        raise(SIGTERM);
      },
      ::testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
}  // namespace lorad::loractl
