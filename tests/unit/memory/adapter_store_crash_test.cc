// A process that uses the store is killed: at every disk operation of a fixed script, and at random
// moments of a busy life. What it was told is done must be there when the store is opened again;
// what it was not told is done or not, never half.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <map>
#include <random>
#include <set>
#include <sstream>

#include "memory/adapter_store.h"
#include "memory/base/check.h"
#include "tests/unit/memory/store_fixture.h"

namespace lorad {
namespace {

namespace fs = std::filesystem;

constexpr int kIds = 4;

// One line a piece: an intention before each change, an acknowledgement after it.
class Journal {
 public:
  explicit Journal(int fd) : fd_(fd) {}
  void Say(const std::string& line) {
    LORAD_CHECK(::write(fd_, line.data(), line.size()) == static_cast<ssize_t>(line.size()));
  }

 private:
  const int fd_;
};

// What the parent knows of an id from the journal.
struct Known {
  int seed = -1;           // acknowledged last; -1: deleted or never there
  int64_t greatest = 0;    // version seen
  bool in_flight = false;  // an intention was not acknowledged
  int intended = -1;
};

// Changes one adapter: mostly stores `seed`, sometimes deletes it and its files.
void Change(AdapterStore* store, Journal* journal, int id, int seed, bool remove) {
  const std::string name = fmt::format("adapter-{}", id);
  journal->Say(fmt::format("begin {} {}\n", id, remove ? -1 : seed));
  if (remove) {
    const absl::Status status = store->RemoveAll(name);
    LORAD_CHECK(status.ok() || absl::IsNotFound(status));
    journal->Say(fmt::format("done {} -1 0\n", id));
    return;
  }
  const absl::StatusOr<StoredVersion> put = Put(store, name, seed);
  LORAD_CHECK(put.ok());
  journal->Say(fmt::format("done {} {} {}\n", id, seed, put->version));
  if (put->version > 1) store->Remove(name, put->version - 1).IgnoreError();
}

void ReadJournal(const std::string& text, std::map<int, Known>* known) {
  std::istringstream lines(text);
  for (std::string word; lines >> word;) {
    int id = 0, seed = 0;
    lines >> id >> seed;
    Known& k = (*known)[id];
    k.in_flight = word == "begin";
    k.intended = seed;
    if (word != "done") continue;
    k.seed = seed;
    int64_t version = 0;
    lines >> version;
    if (version == 0) continue;
    EXPECT_GT(version, k.greatest) << "a version number came again";
    k.greatest = version;
  }
}

class StoreCrashTest : public StoreTest {
 protected:
  // Runs `body` in a child until it ends or, a short while after it said `lines` lines, is killed.
  // Returns what it said.
  std::string RunAndKill(const std::function<void(Journal*)>& body, int64_t lines = INT64_MAX,
                         useconds_t later = 0) {
    int pipe_fds[2];
    LORAD_CHECK(::pipe(pipe_fds) == 0);
    const pid_t child = ::fork();
    LORAD_CHECK(child >= 0);
    if (child == 0) {
      ::close(pipe_fds[0]);
      Journal journal(pipe_fds[1]);
      body(&journal);
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
  void CheckAgainst(std::map<int, Known>* known) {
    AdapterStore& store = Open();
    EXPECT_TRUE(store.recovery().quarantined.empty()) << store.recovery().quarantined[0];
    EXPECT_TRUE(NamesIn(root_ / "staging").empty() && NamesIn(root_ / "trash").empty());
    for (auto& [id, k] : *known) {
      const absl::StatusOr<StoredVersion> latest = Latest(store, fmt::format("adapter-{}", id));
      const int seed = latest.ok() ? SeedOf(store, *latest) : -1;
      if (latest.ok()) {
        EXPECT_NE(seed, -1) << "torn files";
        EXPECT_GE(latest->version, k.greatest);
        k.greatest = latest->version;
      }
      EXPECT_TRUE(seed == k.seed || (k.in_flight && seed == k.intended))
          << fmt::format("adapter {} is {}, acknowledged {}, in flight {}", id, seed, k.seed,
                         k.in_flight ? k.intended : -2);
      k.seed = seed;
      k.in_flight = false;
    }
    for (const StoredAdapter& adapter : store.List()) EXPECT_GE(SeedOf(store, adapter.current), 0);
    store_.reset();
  }
};

TEST_F(StoreCrashTest, KilledAtEveryDiskOperation) {
  int kills = 0;
  for (int n = 0;; ++n) {
    fs::remove_all(root_);
    bool finished = false;
    const std::string said = RunAndKill([&](Journal* journal) {
      int operation = 0;
      AdapterStore& store = Open([&](std::string_view, const fs::path&) {
        if (operation++ == n) ::kill(::getpid(), SIGKILL);
        return 0;
      });
      Change(&store, journal, 0, 10, false);
      Change(&store, journal, 0, 11, false);
      Change(&store, journal, 1, 12, false);
      Change(&store, journal, 0, -1, true);
      Change(&store, journal, 0, 13, false);
      journal->Say("done 9 -1 0\n");
    });
    finished = said.find("done 9") != std::string::npos;
    std::map<int, Known> known;
    ReadJournal(said, &known);
    SCOPED_TRACE(fmt::format("killed at operation {}", n));
    CheckAgainst(&known);
    if (finished || testing::Test::HasFailure()) break;
    ++kills;
  }
  EXPECT_GT(kills, 50);
}

TEST_F(StoreCrashTest, KilledWhileItRecovers) {
  for (int n = 0;; ++n) {
    fs::remove_all(root_);
    Open();
    for (int seed = 1; seed <= 3; ++seed) Put(store_.get(), "adapter-0", seed).value();
    Put(store_.get(), "adapter-1", 4).value();
    EXPECT_EQ(store_->Delete("adapter-1"), absl::OkStatus());
    store_.reset();
    fs::create_directories(root_ / "staging/1");
    const std::string said = RunAndKill([&](Journal* journal) {
      int operation = 0;
      Open([&](std::string_view, const fs::path&) {
        if (operation++ == n) ::kill(::getpid(), SIGKILL);
        return 0;
      });
      journal->Say("done 9 -1 0\n");
    });
    std::map<int, Known> known;
    known[0] = {.seed = 3, .greatest = 3};
    known[1] = {.seed = -1, .greatest = 1};
    CheckAgainst(&known);
    if (!said.empty() || testing::Test::HasFailure()) break;
    ASSERT_LT(n, 1000);
  }
}

TEST_F(StoreCrashTest, KilledAtRandomMoments) {
  std::mt19937 random(1);
  std::map<int, Known> known;
  size_t acknowledged = 0;
  int cut_short = 0;
  for (int life = 0; life < 60; ++life) {
    const auto seed = static_cast<uint32_t>(random());
    const std::string said = RunAndKill(
        [&](Journal* journal) {
          std::mt19937 own(seed);
          AdapterStore& store = Open();
          for (int change = 0;; ++change) {
            Change(&store, journal, static_cast<int>(own() % kIds), life * 1000 + change,
                   own() % 5 == 0);
          }
        },
        1 + random() % 30, static_cast<useconds_t>(random() % 500));
    ReadJournal(said, &known);
    for (const auto& [id, k] : known) cut_short += k.in_flight;
    acknowledged += static_cast<size_t>(std::count(said.begin(), said.end(), '\n')) / 2;
    SCOPED_TRACE(fmt::format("life {}", life));
    CheckAgainst(&known);
    if (testing::Test::HasFailure()) break;
  }
  EXPECT_GT(acknowledged, 50u);  // it did live
  EXPECT_GT(cut_short, 5);       // and was killed in the middle of something
}

}  // namespace
}  // namespace lorad
