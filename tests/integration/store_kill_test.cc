// The daemon is killed at 200 random moments while clients upload, replace, relabel, roll back and
// delete adapters. After each restart the store shows exactly what was acknowledged; of the one
// change that each client had in flight, all or nothing.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/integration/daemon_process.h"
#include "tests/integration/demo_requests.h"

namespace lorad::integration {
namespace {

constexpr int kKills = 200;
constexpr int kClients = 3;
constexpr int kNamesOfAClient = 3;

// What a listing shows of one adapter, as far as a crash could spoil it.
struct State {
  bool exists = false;
  int64_t version = 0;
  std::string sha256;
  std::string label;

  bool operator==(const State&) const = default;
};

void PrintTo(const State& s, std::ostream* out) {
  *out << fmt::format("{{exists {}, version {}, sha256 {:.8}, label \"{}\"}}", s.exists, s.version,
                      s.sha256, s.label);
}

State StateOf(const v1::Adapter& adapter) {
  const auto label = adapter.settings().labels().find("round");
  return {.exists = true,
          .version = adapter.version(),
          .sha256 = adapter.sha256(),
          .label = label == adapter.settings().labels().end() ? "" : label->second};
}

// One name: what was acknowledged of it, and what the change in flight, if any, would make of it.
struct Name {
  std::string id;
  State acknowledged;
  int64_t last_version = 0;  // ever acknowledged or seen: numbers are not used again
  bool in_flight = false;
  std::optional<State> wanted;  // none: a rollback, whose outcome only the version tells
};

// Changes its own names at random until the server is gone.
class Changer {
 public:
  Changer(int client, uint32_t seed) : random_(seed) {
    for (int i = 0; i < kNamesOfAClient; ++i) {
      names_.push_back({.id = fmt::format("kill-{}-{}", client, i)});
    }
  }

  void RunUntilGone(const std::string& address) {
    Client client({.address = address});
    while (ChangeOne(&client)) ++acknowledged_;
  }

  // What a fresh server lists, by id; removes what it accounts for.
  void Check(std::map<std::string, State>* listed) {
    for (Name& name : names_) {
      const auto found = listed->find(name.id);
      const State now = found == listed->end() ? State{} : found->second;
      if (!(now == name.acknowledged)) {
        ASSERT_TRUE(name.in_flight)
            << name.id << " is " << ::testing::PrintToString(now) << ", acknowledged was "
            << ::testing::PrintToString(name.acknowledged);
        CheckInFlight(name, now);
      }
      name.acknowledged = now;
      name.last_version = std::max(name.last_version, now.version);
      name.in_flight = false;
      listed->erase(name.id);
    }
  }
  int64_t acknowledged() const { return acknowledged_; }

 private:
  static void CheckInFlight(const Name& name, const State& now) {
    if (!name.wanted.has_value()) {  // a rollback
      EXPECT_TRUE(now.exists && now.version > name.last_version) << name.id;
      EXPECT_EQ(now.label, name.acknowledged.label);
      return;
    }
    State wanted = *name.wanted;
    if (wanted.exists && wanted.version == 0) {
      EXPECT_GT(now.version, name.last_version) << name.id << ": a number was used again";
      wanted.version = now.version;
    }
    EXPECT_EQ(now, wanted) << name.id << " is neither as acknowledged nor as asked for";
  }

  size_t Pick(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random_); }

  // False: the server did not answer.
  bool ChangeOne(Client* client) {
    Name& name = names_[Pick(names_.size())];
    name.in_flight = true;
    name.wanted = name.acknowledged;
    absl::StatusOr<v1::Adapter> adapter;
    const size_t kind = name.acknowledged.exists ? Pick(10) : 0;
    if (kind < 5) {
      adapter = Upload(client, &name);
    } else if (kind < 7) {
      adapter = Relabel(client, &name);
    } else if (kind < 9) {
      name.wanted.reset();
      v1::RollbackAdapterRequest request;
      request.set_name(name.id);
      adapter = client->RollbackAdapter(request);
      if (absl::IsNotFound(adapter.status())) {  // nothing is kept of it
        name.in_flight = false;
        return true;
      }
    } else {
      name.wanted = State{};
      const absl::Status status = client->DeleteAdapter(name.id, false);
      if (!status.ok()) return Gone(status);
      name.acknowledged = {};
      name.in_flight = false;
      return true;
    }
    if (!adapter.ok()) return Gone(adapter.status());
    name.acknowledged = StateOf(*adapter);
    name.last_version = std::max(name.last_version, name.acknowledged.version);
    name.in_flight = false;
    return true;
  }

  absl::StatusOr<v1::Adapter> Upload(Client* client, Name* name) {
    const auto contents = DemoAdapters();
    AdapterUpload upload;
    upload.adapter_id = name->id;
    upload.directory = DemoAdapterPath(contents[Pick(contents.size())]);
    upload.replace = true;
    upload.settings.emplace();
    (*upload.settings->mutable_labels())["round"] = NextLabel();
    name->wanted->exists = true;
    name->wanted->label = upload.settings->labels().at("round");
    name->wanted->version = 0;  // the server's to choose
    name->wanted->sha256 = ShaOf(upload.directory);
    // The very same files only change the settings.
    if (name->wanted->sha256 == name->acknowledged.sha256) {
      name->wanted->version = name->acknowledged.version;
    }
    return client->UploadAdapter(upload, nullptr);
  }

  absl::StatusOr<v1::Adapter> Relabel(Client* client, Name* name) {
    v1::UpdateAdapterRequest request;
    request.set_name(name->id);
    name->wanted->label = NextLabel();
    (*request.mutable_settings()->mutable_labels())["round"] = name->wanted->label;
    request.mutable_update_mask()->add_paths("labels");
    return client->UpdateAdapter(request);
  }

  std::string NextLabel() { return fmt::format("l{}", ++labels_); }

  // The weights' hash of a directory of the demo, as an earlier upload reported it.
  std::string ShaOf(const std::string& directory) {
    const auto found = shas_.find(directory);
    if (found != shas_.end()) return found->second;
    const Finished sum =
        RunProgram({"/usr/bin/sha256sum", directory + "/adapter_model.safetensors"});
    return shas_[directory] = sum.out.substr(0, 64);
  }

  static bool Gone(const absl::Status& status) {
    EXPECT_TRUE(absl::IsUnavailable(status) || absl::IsCancelled(status)) << status;
    return false;
  }

  std::mt19937 random_;
  std::vector<Name> names_;
  std::map<std::string, std::string> shas_;
  int labels_ = 0;
  int64_t acknowledged_ = 0;
};

TEST(StoreKillTest, NothingAcknowledgedIsLostAndNothingHalfDoneIsShown) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937 random(seed);
  std::vector<Changer> changers;
  for (int i = 0; i < kClients; ++i) changers.emplace_back(i, random());
  DaemonProcess daemon;
  const std::vector<std::string> options = {"--cpu-isa", "portable",        "--pool-bytes",
                                            "16MiB",     "--keep-versions", "1"};
  ASSERT_TRUE(daemon.Start(options));
  for (int kill = 0; kill < kKills; ++kill) {
    std::vector<std::thread> threads;
    for (Changer& changer : changers) {
      threads.emplace_back([&] { changer.RunUntilGone(daemon.address()); });
    }
    std::this_thread::sleep_for(
        std::chrono::microseconds(std::uniform_int_distribution<int>(0, 80'000)(random)));
    daemon.Kill();
    for (std::thread& thread : threads) thread.join();

    ASSERT_TRUE(daemon.Start(options)) << "after kill " << kill;
    Client client({.address = daemon.address()});
    const auto adapters = client.ListAdapters();
    ASSERT_TRUE(adapters.ok()) << adapters.status();
    std::map<std::string, State> listed;
    for (const v1::Adapter& a : *adapters) {
      listed[a.name().substr(std::string("adapters/").size())] = StateOf(a);
    }
    for (Changer& changer : changers) changer.Check(&listed);
    EXPECT_TRUE(listed.empty()) << listed.begin()->first << " was never created";
    ASSERT_FALSE(::testing::Test::HasFailure()) << "after kill " << kill;
  }
  int64_t acknowledged = 0;
  for (const Changer& changer : changers) acknowledged += changer.acknowledged();
  EXPECT_GT(acknowledged, kKills) << "the kills came before anything happened";

  // What is there can be used.
  Client client({.address = daemon.address()});
  const auto adapters = client.ListAdapters();
  ASSERT_TRUE(adapters.ok());
  for (const v1::Adapter& a : *adapters) {
    const Answer answer = Ask(&client, GreedyRequest(a.name(), "Words: drum bread rat\n", 4));
    EXPECT_TRUE(answer.status.ok()) << a.name() << ": " << answer.status;
    EXPECT_EQ(answer.finish.adapter_version(), a.version());
  }
  EXPECT_EQ(daemon.Terminate().code, 0);
}

}  // namespace
}  // namespace lorad::integration
