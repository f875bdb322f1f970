#include "client/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>

#include "client/error.h"
#include "tests/unit/client/fake_server.h"

namespace lorad {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::GenerateRequest Prompt(const std::string& text) {
  v1::GenerateRequest request;
  request.mutable_prompt()->set_text(text);
  return request;
}

class ClientTest : public ::testing::Test {
 protected:
  FakeServer server_;
  Client client_{ClientOptions{.address = server_.address(), .connections = 2}};
};

TEST_F(ClientTest, GenerateStreamsAndReturnsTheFinish) {
  std::string text;
  const auto finish = client_.Generate(Prompt("hi"), [&](const v1::GenerateResponse& message) {
    text += message.text();
    return true;
  });
  ASSERT_TRUE(finish.ok()) << finish.status();
  EXPECT_EQ(text, "one two\nthree");
  EXPECT_EQ(finish->usage().completion_tokens(), 4);
  ASSERT_EQ(server_.inference.requests().size(), 1u);
  EXPECT_EQ(server_.inference.requests()[0].prompt().text(), "hi");
}

TEST_F(ClientTest, AStreamWithoutAFinishIsAnError) {
  server_.inference.no_finish = true;
  EXPECT_EQ(client_.Generate(Prompt("hi"), nullptr).status().code(), absl::StatusCode::kInternal);
}

TEST_F(ClientTest, ReturningFalseCancels) {
  server_.inference.words.assign(1000, "x");
  server_.inference.gap = milliseconds(5);
  int messages = 0;
  const auto finish = client_.Generate(Prompt("hi"), [&](const auto&) { return ++messages < 3; });
  EXPECT_EQ(finish.status().code(), absl::StatusCode::kCancelled);
  EXPECT_LT(messages, 1000);
}

TEST_F(ClientTest, AsyncCallsRunAtTheSameTime) {
  server_.inference.gap = milliseconds(1);
  std::atomic<int> messages{0};
  std::atomic<int> done{0};
  std::vector<std::unique_ptr<GenerateCall>> calls;
  for (int i = 0; i < 16; ++i) {
    calls.push_back(
        client_.GenerateAsync(Prompt("hi"), {.on_message = [&](const auto&) { ++messages; },
                                             .on_done =
                                                 [&](const absl::Status& status) {
                                                   EXPECT_TRUE(status.ok()) << status;
                                                   ++done;
                                                 }}));
  }
  for (const auto& call : calls) call->Wait();
  EXPECT_EQ(done, 16);
  EXPECT_EQ(messages, 16 * 5);
}

TEST_F(ClientTest, DroppingARunningCallCancelsItAndWaits) {
  server_.inference.words.assign(100000, "x");
  server_.inference.gap = milliseconds(2);
  absl::StatusCode code = absl::StatusCode::kOk;
  {
    const auto call = client_.GenerateAsync(
        Prompt("hi"), {.on_message = [](const auto&) {},
                       .on_done = [&](const absl::Status& status) { code = status.code(); }});
  }
  EXPECT_EQ(code, absl::StatusCode::kCancelled);
}

TEST_F(ClientTest, TheTimeoutIsTheCallsDeadline) {
  server_.inference.words.assign(100000, "x");
  server_.inference.gap = milliseconds(2);
  const auto finish = client_.Generate(Prompt("hi"), nullptr, {.timeout = milliseconds(50)});
  EXPECT_EQ(finish.status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ClientTest, ErrorsKeepTheServersDetails) {
  server_.inference.error = RichError(grpc::StatusCode::INVALID_ARGUMENT, "must be in (0, 1]",
                                      "sampling.top_p", "INVALID_FIELD", 0);
  const absl::Status status = client_.Generate(Prompt("hi"), nullptr).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const ErrorDetails details = GetErrorDetails(status);
  EXPECT_EQ(details.reason, "INVALID_FIELD");
  EXPECT_EQ(details.domain, "lorad.dev");
  ASSERT_EQ(details.fields.size(), 1u);
  EXPECT_EQ(details.fields[0].field, "sampling.top_p");
  EXPECT_THAT(DescribeError(status), HasSubstr("field: sampling.top_p"));
}

TEST_F(ClientTest, RetryInfoIsDecoded) {
  server_.inference.error =
      RichError(grpc::StatusCode::RESOURCE_EXHAUSTED, "full", "", "QUEUE_FULL", 1250);
  const absl::Status status = client_.Score(v1::ScoreRequest()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetErrorDetails(status).retry_after, milliseconds(1250));
  EXPECT_THAT(DescribeError(status), HasSubstr("1.2 s"));
}

TEST(ClientErrorTest, AStatusWithoutOrWithBrokenDetailsHasNone) {
  EXPECT_EQ(GetErrorDetails(absl::InternalError("x")).reason, "");
  absl::Status broken = absl::InternalError("x");
  broken.SetPayload(kRpcStatusUrl, absl::Cord("\xff\xff\xff"));
  EXPECT_TRUE(GetErrorDetails(broken).fields.empty());
}

TEST(ClientErrorTest, NoServerIsUnavailable) {
  Client client(ClientOptions{.address = "127.0.0.1:1"});
  EXPECT_EQ(client.GetModel().status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClientTest, ListFollowsThePages) {
  for (const char* name : {"a", "b", "c", "d", "e"}) {
    server_.adapters.adapters.emplace_back().set_name(name);
  }
  const auto list = client_.ListAdapters();
  ASSERT_TRUE(list.ok()) << list.status();
  std::vector<std::string> names;
  for (const auto& adapter : *list) names.push_back(adapter.name());
  EXPECT_THAT(names, ElementsAre("a", "b", "c", "d", "e"));
}

TEST_F(ClientTest, DeleteAllowsMissingOnlyWhenAsked) {
  EXPECT_EQ(client_.DeleteAdapter("x", false).code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(client_.DeleteAdapter("x", true).ok());
}

TEST_F(ClientTest, DeleteGuardsWithTheEtag) {
  server_.adapters.Seed("adapters/pirate", {}, "c", "w");
  const absl::Status status = client_.DeleteAdapter("pirate", false, "other");
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(GetErrorDetails(status).reason, "ETAG_MISMATCH");
  const std::string etag = client_.GetAdapter("pirate")->etag();
  EXPECT_TRUE(client_.DeleteAdapter("pirate", false, etag).ok());
  EXPECT_FALSE(server_.adapters.Find("adapters/pirate").has_value());
}

TEST_F(ClientTest, ListFiltersByLabels) {
  v1::AdapterSettings settings;
  (*settings.mutable_labels())["team"] = "sea";
  server_.adapters.Seed("adapters/a", settings, "c", "w");
  server_.adapters.Seed("adapters/b", {}, "c", "w");
  const auto list = client_.ListAdapters({.labels = {{"team", "sea"}}});
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_EQ(list->size(), 1u);
  EXPECT_EQ((*list)[0].name(), "adapters/a");
}

TEST_F(ClientTest, EveryCallSpeaksForTheTenant) {
  Client client({.address = server_.address(), .tenant = "acme"});
  server_.adapters.watch_end = grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
  (void)client.Generate(Prompt("hi"), nullptr);
  (void)client.Score({});
  (void)client.Tokenize({});
  (void)client.Detokenize({});
  (void)client.CreateAdapter({});
  (void)client.UploadAdapter({.adapter_id = "x", .directory = "/nonexistent"}, nullptr);
  (void)client.GetAdapter("x");
  (void)client.ListAdapters();
  (void)client.UpdateAdapter({});
  (void)client.ListAdapterVersions("x");
  (void)client.RollbackAdapter({});
  (void)client.DeleteAdapter("x", true);
  (void)client.WatchAdapters({}, [](const auto&) { return true; });
  (void)client.GetModel();
  (void)client.GetPool(0);
  (void)client.GetFit({});
  (void)client.ListTenants();
  (void)client.GetStats();
  (void)client.Drain({});
  (void)client.IsServing("");
  const auto tenants = server_.tenants();
  // All methods of the three services but UploadAdapter (see UploadTest), and the health check.
  EXPECT_EQ(tenants.size(), 4u + 8u + 6u + 1u);
  for (const auto& [method, tenant] : tenants) EXPECT_EQ(tenant, "acme") << method;

  const auto call = client.GenerateAsync(
      Prompt("hi"), {.on_message = [](const auto&) {}, .on_done = [](const auto&) {}});
  call->Wait();
  EXPECT_EQ(server_.tenants().at("/lorad.v1.Inference/Generate"), "acme");
  ASSERT_TRUE(client_.GetModel().ok());
  EXPECT_EQ(server_.tenants().at("/lorad.v1.Admin/GetModel"), "");
}

TEST_F(ClientTest, VersionsComeNewestFirstAndCanBeRolledBack) {
  server_.adapters.Seed("adapters/pirate", {}, "c", "old");
  server_.adapters.Seed("adapters/pirate", {}, "c", "new");
  v1::RollbackAdapterRequest request;
  request.set_name("pirate");
  request.set_version(1);
  const auto adapter = client_.RollbackAdapter(request);
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  EXPECT_EQ(adapter->version(), 3);
  const auto versions = client_.ListAdapterVersions("pirate");
  ASSERT_TRUE(versions.ok()) << versions.status();
  std::vector<std::string> hashes;
  for (const auto& version : *versions) hashes.push_back(version.sha256());
  EXPECT_THAT(hashes, ElementsAre("old", "new", "old"));
}

v1::WatchAdaptersResponse Event(v1::WatchAdaptersResponse::Type type, const std::string& name) {
  v1::WatchAdaptersResponse event;
  event.set_type(type);
  event.mutable_adapter()->set_name(name);
  return event;
}

TEST_F(ClientTest, WatchGivesTheEventsAndEndsWithTheStreamsStatus) {
  server_.adapters.events = {Event(v1::WatchAdaptersResponse::INITIAL, "adapters/a"),
                             Event(v1::WatchAdaptersResponse::DELETED, "adapters/a")};
  server_.adapters.watch_end = grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
  std::vector<v1::WatchAdaptersResponse::Type> types;
  const absl::Status status =
      client_.WatchAdapters({{"team", "sea"}}, [&](const v1::WatchAdaptersResponse& event) {
        types.push_back(event.type());
        return true;
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(types,
              ElementsAre(v1::WatchAdaptersResponse::INITIAL, v1::WatchAdaptersResponse::DELETED));
  EXPECT_EQ(server_.adapters.watched.labels().at("team"), "sea");
}

TEST_F(ClientTest, WatchStopsWhenTheCallbackSaysSo) {
  server_.adapters.events.assign(100, Event(v1::WatchAdaptersResponse::CHANGED, "adapters/a"));
  int events = 0;  // watch_end is OK: the server waits until the client cancels
  const absl::Status status = client_.WatchAdapters({}, [&](const auto&) { return ++events < 3; });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(events, 3);
}

TEST_F(ClientTest, Health) {
  EXPECT_EQ(client_.IsServing("").value(), true);
  server_.health.serving = false;
  EXPECT_EQ(client_.IsServing("").value(), false);
  EXPECT_EQ(client_.IsServing("nothing").status().code(), absl::StatusCode::kNotFound);
}

class UploadTest : public ClientTest {
 protected:
  void SetUp() override {
    directory_ = ::testing::TempDir() + "/lorad_upload_" + std::to_string(getpid());
    std::filesystem::create_directories(directory_);
    Write("adapter_config.json", "{\"r\": 8}");
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  void Write(const std::string& name, const std::string& content) {
    std::ofstream(directory_ + "/" + name, std::ios::binary) << content;
  }
  AdapterUpload Upload() const {
    return {.adapter_id = "pirate", .directory = directory_, .replace = true};
  }

  std::string directory_;
};

TEST_F(UploadTest, SendsTheFilesInOrderInChunks) {
  std::string weights((5 << 19) + 3, '\0');  // 2.5 chunks and a bit
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<char>(i * 31 >> 4);
  Write("adapter_model.safetensors", weights);
  int64_t last = 0;
  const auto adapter = client_.UploadAdapter(Upload(), [&](int64_t sent, int64_t total) {
    EXPECT_GT(sent, last);
    EXPECT_LE(sent, total);
    last = sent;
  });
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  EXPECT_EQ(adapter->name(), "adapters/pirate");
  const FakeAdapters& seen = server_.adapters;
  EXPECT_TRUE(seen.header.replace());
  EXPECT_FALSE(seen.header.preload());
  ASSERT_EQ(seen.header.files_size(), 2);
  EXPECT_EQ(seen.header.files(0).name(), "adapter_config.json");
  EXPECT_EQ(seen.header.files(1).size_bytes(), static_cast<int64_t>(weights.size()));
  // sha256sum of {"r": 8} without a line feed.
  EXPECT_EQ(seen.header.files(0).sha256(),
            "fd66c57ec3933dd396b22ffd2c904bdbe96a4477c250382ee6265e2d7921fdd8");
  EXPECT_THAT(seen.files, ElementsAre("{\"r\": 8}", weights));
  EXPECT_TRUE(seen.in_order);
  for (const size_t bytes : seen.chunk_bytes) EXPECT_LE(bytes, size_t{1} << 20);
  EXPECT_EQ(last, static_cast<int64_t>(weights.size()) + 8);
}

TEST_F(UploadTest, TheServersRefusalInTheMiddleIsReported) {
  Write("adapter_model.safetensors", std::string(20 << 20, 'x'));
  server_.adapters.refuse_after_chunks = 2;
  const absl::Status status = client_.UploadAdapter(Upload(), nullptr).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorDetails(status).reason, "BAD_TENSOR");
}

TEST_F(UploadTest, AServerThatHasTheFilesNeedNotBeSentThem) {
  Write("adapter_model.safetensors", std::string(20 << 20, 'x'));
  const auto first = client_.UploadAdapter(Upload(), nullptr);
  ASSERT_TRUE(first.ok()) << first.status();
  int64_t sent = 0;
  const auto again = client_.UploadAdapter(Upload(), [&](int64_t now, int64_t) { sent = now; });
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->version(), 1);
  EXPECT_LT(sent, int64_t{20} << 20);
}

TEST_F(UploadTest, TheHeaderSaysTenantSettingsAndEtag) {
  Write("adapter_model.safetensors", "x");
  Client client({.address = server_.address(), .tenant = "acme"});
  ASSERT_TRUE(client.UploadAdapter(Upload(), nullptr).ok());
  EXPECT_FALSE(server_.adapters.header.has_settings());
  EXPECT_EQ(server_.tenants().at("/lorad.v1.Adapters/UploadAdapter"), "acme");
  Write("adapter_model.safetensors", "y");
  AdapterUpload upload = Upload();
  upload.settings.emplace().set_pinned(true);
  upload.etag = server_.adapters.Find("adapters/acme/pirate")->etag();
  ASSERT_TRUE(client.UploadAdapter(upload, nullptr).ok());
  EXPECT_TRUE(server_.adapters.Find("adapters/acme/pirate")->settings().pinned());
  EXPECT_EQ(client.UploadAdapter(upload, nullptr).status().code(), absl::StatusCode::kAborted);
}

TEST_F(UploadTest, AMissingFileIsNamedAndNothingIsSent) {
  const absl::Status status = client_.UploadAdapter(Upload(), nullptr).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("adapter_model.safetensors"));
  EXPECT_EQ(server_.adapters.header.files_size(), 0);
}

}  // namespace
}  // namespace lorad
