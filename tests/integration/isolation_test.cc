// The wrong-state faults that other servers of adapters have had, each with the test that would
// have caught it: keys and values of another version or adapter or tenant, one damaged adapter that
// takes others along, a name whose uploads meet.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "client/error.h"
#include "tests/integration/daemon_process.h"
#include "tests/integration/demo_requests.h"

namespace lorad::integration {
namespace {

absl::StatusOr<v1::Adapter> Upload(Client* client, const std::string& name, const std::string& demo,
                                   bool replace = false) {
  return client->UploadAdapter(
      {.adapter_id = name, .directory = DemoAdapterPath(demo), .replace = replace}, nullptr);
}

// A prompt of several pages, so that there is something to share.
std::string LongPrompt() {
  std::string prompt;
  for (const std::string& adapter : DemoAdapters()) prompt += LoadEval(adapter, 1)[0].prompt + "\n";
  return prompt;
}

v1::GenerateRequest Request(const std::string& adapter) {
  v1::GenerateRequest request = GreedyRequest(adapter, LongPrompt(), 24);
  request.set_ignore_eos(true);
  request.set_logprobs(1);
  return request;
}

class IsolationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(daemon_.StartWithDemo());
    client_ = std::make_unique<Client>(ClientOptions{.address = daemon_.address()});
  }

  Answer MustAsk(const v1::GenerateRequest& request) { return MustAsk(client_.get(), request); }
  static Answer MustAsk(Client* client, const v1::GenerateRequest& request) {
    Answer answer = Ask(client, request);
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    return answer;
  }

  DaemonProcess daemon_;
  std::unique_ptr<Client> client_;
};

// vllm#42125: after a reload under the same name, keys and values of the old weights were used on.
TEST_F(IsolationTest, ANewVersionMeetsNothingOfTheOldOne) {
  const Answer expected = MustAsk(Request("json"));
  ASSERT_TRUE(Upload(client_.get(), "changing", "arith").ok());
  const Answer before = MustAsk(Request("changing"));
  EXPECT_GT(MustAsk(Request("changing")).finish.usage().cached_tokens(), 16);
  ASSERT_TRUE(Upload(client_.get(), "changing", "json", /*replace=*/true).ok());
  const Answer after = MustAsk(Request("changing"));
  EXPECT_EQ(after.finish.usage().cached_tokens(), 0);
  EXPECT_TRUE(after.SameOutput(expected));
  EXPECT_FALSE(after.SameOutput(before));
  // And back: the old weights under a third number.
  v1::RollbackAdapterRequest rollback;
  rollback.set_name("changing");
  ASSERT_TRUE(client_->RollbackAdapter(rollback).ok());
  const Answer again = MustAsk(Request("changing"));
  EXPECT_EQ(again.finish.usage().cached_tokens(), 0);
  EXPECT_EQ(again.finish.adapter_version(), 3);
  EXPECT_TRUE(again.SameOutput(before));
}

// llama.cpp#26207: the prompt cache crossed adapters.
TEST_F(IsolationTest, TheSamePromptIsNeverSharedAcrossAdapters) {
  std::vector<std::string> names = DemoAdapters();
  names.push_back("-");
  std::map<std::string, Answer> first;
  for (const std::string& name : names) {
    first[name] = MustAsk(Request(name));
    EXPECT_EQ(first[name].finish.usage().cached_tokens(), 0) << name;
  }
  const int tokens = first["-"].finish.usage().prompt_tokens();
  for (const std::string& name : names) {
    const Answer second = MustAsk(Request(name));
    EXPECT_EQ(second.finish.usage().cached_tokens(), tokens - 1) << name;
    EXPECT_TRUE(second.SameOutput(first[name])) << name;
  }
}

TEST_F(IsolationTest, TenantsAndSaltsShareNothing) {
  Client acme({.address = daemon_.address(), .tenant = "acme"});
  Client other({.address = daemon_.address(), .tenant = "other"});
  v1::GenerateRequest salted = Request("json");
  salted.set_cache_salt("alice");
  const Answer first = MustAsk(&acme, Request("json"));
  for (const Answer& answer :
       {MustAsk(&other, Request("json")), MustAsk(Request("json")), MustAsk(&acme, salted),
        MustAsk(&acme, Request("-")), MustAsk(&other, Request("-"))}) {
    EXPECT_EQ(answer.finish.usage().cached_tokens(), 0);
  }
  const Answer again = MustAsk(&acme, Request("json"));
  EXPECT_GT(again.finish.usage().cached_tokens(), 16);
  EXPECT_TRUE(again.SameOutput(first));
}

TEST(SharingTest, BasePromptsAreSharedAcrossTenantsWhereTheOperatorSaysSo) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.StartWithDemo({"--share-base-prefixes", "true"}));
  Client acme({.address = daemon.address(), .tenant = "acme"});
  Client other({.address = daemon.address(), .tenant = "other"});
  for (const std::string name : {"-", "json"}) {
    EXPECT_EQ(Ask(&acme, Request(name)).finish.usage().cached_tokens(), 0);
    const int cached = Ask(&other, Request(name)).finish.usage().cached_tokens();
    EXPECT_EQ(cached > 0, name == "-") << name;
  }
}

TEST(SharingTest, WithoutPrefixCacheNothingIsKept) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.StartWithDemo({"--prefix-cache", "false"}));
  Client client({.address = daemon.address()});
  const Answer first = Ask(&client, Request("json"));
  const Answer second = Ask(&client, Request("json"));
  EXPECT_EQ(second.finish.usage().cached_tokens(), 0);
  EXPECT_TRUE(second.SameOutput(first));
  const auto pool = client.GetPool(0);
  ASSERT_TRUE(pool.ok());
  EXPECT_EQ(pool->kv_cached_pages(), 0);
}

// A file of the store that changed behind the server's back: its adapter fails, nobody else.
TEST_F(IsolationTest, ADamagedFileFailsItsOwnRequestsOnly) {
  const std::filesystem::path file =
      daemon_.state_dir() + "/adapters/pirate/1/adapter_model.safetensors";
  ASSERT_TRUE(std::filesystem::exists(file));
  {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(-3, std::ios::end);  // within a weight: no structure is hurt
    const char byte = static_cast<char>(stream.get() ^ 0x10);
    stream.seekp(-3, std::ios::end);
    stream.put(byte);
  }
  const Answer bad = Ask(client_.get(), Request("pirate"));
  EXPECT_TRUE(absl::IsDataLoss(bad.status)) << bad.status;
  EXPECT_EQ(GetErrorDetails(bad.status).reason, "ADAPTER_CORRUPT");
  const auto adapter = client_->GetAdapter("pirate");
  ASSERT_TRUE(adapter.ok());
  EXPECT_NE(adapter->last_error(), "");
  EXPECT_EQ(adapter->state(), v1::Adapter::STORED);
  for (const std::string& name : DemoAdapters()) {
    if (name == "pirate") continue;
    EXPECT_TRUE(Ask(client_.get(), Request(name)).status.ok()) << name;
  }
  // The same files once more mend it, although the server has "the very same" already.
  const auto mended = Upload(client_.get(), "pirate", "pirate", /*replace=*/true);
  ASSERT_TRUE(mended.ok()) << mended.status();
  EXPECT_TRUE(Ask(client_.get(), Request("pirate")).status.ok());
}

TEST_F(IsolationTest, TwoUploadsOfOneNameAtOnceAreOneAfterTheOther) {
  for (const bool replace : {false, true}) {
    const std::string name = fmt::format("contested-{}", replace);
    std::vector<absl::StatusOr<v1::Adapter>> results(4, absl::UnknownError(""));
    std::vector<std::thread> threads;
    const std::vector<std::string> demos = DemoAdapters();
    for (size_t i = 0; i < results.size(); ++i) {
      threads.emplace_back([&, i] {
        Client own({.address = daemon_.address()});
        results[i] = Upload(&own, name, demos[i], replace);
      });
    }
    for (std::thread& thread : threads) thread.join();
    std::map<int64_t, std::string> versions;  // -> sha256
    for (const auto& result : results) {
      if (result.ok()) {
        EXPECT_TRUE(versions.emplace(result->version(), result->sha256()).second)
            << "two were told that version " << result->version() << " is theirs";
      } else {
        EXPECT_FALSE(replace);
        EXPECT_TRUE(absl::IsAlreadyExists(result.status())) << result.status();
      }
    }
    EXPECT_EQ(versions.size(), replace ? 4U : 1U);
    const auto current = client_->GetAdapter(name);
    ASSERT_TRUE(current.ok());
    EXPECT_EQ(current->sha256(), versions.rbegin()->second) << "the last one is current";
    EXPECT_EQ(current->version(), versions.rbegin()->first);
  }
}

// An adapter that goes while requests for it wait: they get an answer, and nothing is left behind.
TEST_F(IsolationTest, DeletedWhileItLoadsOrRunsLeavesNothing) {
  for (int round = 0; round < 20; ++round) {
    ASSERT_TRUE(Upload(client_.get(), "brief", "sort").ok());
    std::vector<std::unique_ptr<BackgroundAnswer>> running;
    for (int i = 0; i < 3; ++i) {
      running.push_back(std::make_unique<BackgroundAnswer>(client_.get(), Request("brief")));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(300 * round));
    ASSERT_TRUE(client_->DeleteAdapter("brief", false).ok());
    for (auto& answer : running) {
      const absl::Status status = answer->Wait().status;
      EXPECT_TRUE(status.ok() || absl::IsNotFound(status)) << status;
    }
  }
  EXPECT_TRUE(Eventually([&] {
    const auto pool = client_->GetPool(0);
    if (!pool.ok() || pool->kv_pages() != 0) return false;
    for (const auto& adapter : pool->adapters()) {
      if (adapter.name() == "adapters/brief") return false;
    }
    return pool->kv_cached_pages() == 0;
  })) << client_->GetPool(0)->DebugString();
}

}  // namespace
}  // namespace lorad::integration
