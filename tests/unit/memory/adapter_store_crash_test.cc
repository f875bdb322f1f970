// A process that uses the store is killed: at every disk operation of a fixed script, and at random
// moments of a busy life. What it was told is done must be there when the store is opened again;
// what it was not told is done or not, never half.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <random>

#include "memory/adapter_store.h"
#include "memory/base/check.h"
#include "tests/unit/memory/store_fixture.h"
#include "tests/unit/memory/store_script.h"

namespace lorad {
namespace {

namespace fs = std::filesystem;

constexpr int kIds = 4;

bool Finished(const std::string& said) { return said.find("end") != std::string::npos; }

class StoreCrashTest : public StoreTest {
 protected:
  // Runs `body` in a child until it ends or, a short while after it said `lines` lines, is killed.
  // Returns what it said.
  std::string RunAndKill(const std::function<void(const ScriptedAdapter::Say&)>& body,
                         int64_t lines = INT64_MAX, useconds_t later = 0) {
    int pipe_fds[2];
    LORAD_CHECK(::pipe(pipe_fds) == 0);
    const pid_t child = ::fork();
    LORAD_CHECK(child >= 0);
    if (child == 0) {
      ::close(pipe_fds[0]);
      body([&](const std::string& line) {
        LORAD_CHECK(::write(pipe_fds[1], line.data(), line.size()) ==
                    static_cast<ssize_t>(line.size()));
      });
      ::_exit(0);
    }
    ::close(pipe_fds[1]);
    std::string text;
    char block[4096];
    for (ssize_t n; (n = ::read(pipe_fds[0], block, sizeof(block))) > 0;) {
      text.append(block, static_cast<size_t>(n));
      if (std::count(text.begin(), text.end(), '\n') < lines) continue;
      ::usleep(later);
      ::kill(child, SIGKILL);
      lines = INT64_MAX;
    }
    ::close(pipe_fds[0]);
    int status = 0;
    LORAD_CHECK(::waitpid(child, &status, 0) == child);
    EXPECT_TRUE((WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
                (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
        << "the child failed by itself: " << status;
    return text;
  }

  // Opens the store and compares it with the journal; afterwards nothing is in flight.
  void CheckAgainst(KnownAdapters* known) {
    AdapterStore& store = Open();
    EXPECT_TRUE(store.recovery().quarantined.empty()) << store.recovery().quarantined[0];
    ExpectBooksMatchDisk(store);
    ExpectKnown(store, known);
    store_.reset();
  }

  // Runs `script`, again and again from nothing, each time killed at the next
  // disk operation. Returns how often.
  int KillAtEveryOperation(const Script& script) {
    for (int n = 0;; ++n) {
      fs::remove_all(root_);
      const std::string said = RunAndKill([&](const ScriptedAdapter::Say& say) {
        int operation = 0;
        AdapterStore& store = Open([&](std::string_view, const fs::path&) {
          if (operation++ == n) ::kill(::getpid(), SIGKILL);
          return 0;
        });
        script(&store, say, [](const auto& change) { LORAD_CHECK(change().ok()); });
        say("end\n");
      });
      KnownAdapters known;
      Read(said, &known);
      SCOPED_TRACE(fmt::format("killed at operation {}", n));
      CheckAgainst(&known);
      if (Finished(said) || HasFailure()) return n;
    }
  }
};

TEST_F(StoreCrashTest, KilledAtEveryDiskOperationOfVersionsThatComeAndGo) {
  const int kills = KillAtEveryOperation(VersionsComeAndGo);
  EXPECT_GT(kills, 120);
}

TEST_F(StoreCrashTest, KilledAtEveryDiskOperationOfSettingsAndOfANameThatIsUsedAgain) {
  const int kills = KillAtEveryOperation(SettingsChangeAndANameIsUsedAgain);
  EXPECT_GT(kills, 100);
}

// What a recovery does is done once, however often it is cut short.
TEST_F(StoreCrashTest, KilledWhileItRecovers) {
  const auto leave_work = [&] {
    fs::remove_all(root_);
    Open();
    for (int seed = 1; seed <= 4; ++seed) Put(store_.get(), "a", seed).value();
    store_->UpdateSettings("a", "kept").value();
    Put(store_.get(), "gone", 4).value();
    store_->UpdateSettings("gone", "secret").value();
    EXPECT_EQ(store_->Delete("gone"), absl::OkStatus());
    for (int seed = 5; seed <= 7; ++seed) Put(store_.get(), "acme/bad", seed).value();
    store_->UpdateSettings("acme/bad", "of the damaged").value();
    Put(store_.get(), "odd", 8).value();
    store_.reset();
    WriteFile(root_ / "adapters/acme~bad/3/manifest.json", "{");
    WriteFile(root_ / "adapters/odd/settings", "{");
    WriteFile(root_ / "blobs/stray", "x");
    fs::create_directories(root_ / "staging/1");
  };
  leave_work();
  const std::string expected = DescribeAll(Open());
  const std::vector<std::string> quarantine = {"acme~bad.1",        "acme~bad.2",   "acme~bad.3",
                                               "acme~bad.settings", "blob.unknown", "odd.settings"};
  EXPECT_EQ(NamesIn(root_ / "quarantine"), quarantine);
  EXPECT_EQ(expected, fmt::format("a: {}\nodd: {}\n", Describe(4, {3, 2}, "kept", 5),
                                  Describe(8, {}, "", 1)));
  int kills = 0;
  for (bool finished = false; !finished && !HasFailure(); ++kills) {
    store_.reset();
    leave_work();
    const std::string said = RunAndKill([&](const ScriptedAdapter::Say& say) {
      int operation = 0;
      Open([&](std::string_view, const fs::path&) {
        if (operation++ == kills) ::kill(::getpid(), SIGKILL);
        return 0;
      });
      say("end\n");
    });
    finished = Finished(said);
    SCOPED_TRACE(fmt::format("killed at operation {}", kills));
    AdapterStore& store = Open();
    EXPECT_EQ(DescribeAll(store), expected);
    ExpectBooksMatchDisk(store);
    EXPECT_EQ(NamesIn(root_ / "quarantine"), quarantine);  // nothing damaged was thrown away
    EXPECT_EQ(Put(&store, "acme/bad", 9)->version, 4);     // and its number not used again
    EXPECT_EQ(Put(&store, "gone", 9)->version, 2);
  }
  EXPECT_GT(kills, 20);
}

TEST_F(StoreCrashTest, KilledAtRandomMoments) {
  std::mt19937 random(1);
  KnownAdapters known;
  size_t acknowledged = 0;
  int cut_short = 0;
  for (int life = 0; life < 100; ++life) {
    const auto seed = static_cast<uint32_t>(random());
    const std::string said = RunAndKill(
        [&](const ScriptedAdapter::Say& say) {
          std::mt19937 own(seed);
          AdapterStore& store = Open();
          for (int change = 0;; ++change) {
            const ScriptedAdapter adapter(&store, fmt::format("t{}/a{}", own() % 2, own() % kIds),
                                          say);
            LORAD_CHECK(RandomChange(adapter, &own).ok());
            if (own() % 2 == 0) LORAD_CHECK(adapter.RemoveLingering().ok());
          }
        },
        1 + random() % 30, static_cast<useconds_t>(random() % 500));
    Read(said, &known);
    for (const auto& [id, k] : known) cut_short += !k.intended.empty();
    acknowledged += static_cast<size_t>(std::count(said.begin(), said.end(), '\n')) / 2;
    SCOPED_TRACE(fmt::format("life {}", life));
    CheckAgainst(&known);
    if (HasFailure()) break;
  }
  EXPECT_GT(acknowledged, 200u);  // it did live
  EXPECT_GT(cut_short, 10);       // and was killed in the middle of something
}

}  // namespace
}  // namespace lorad
