// Adapters that the server must refuse, and what they must not leave behind.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <set>

#include "client/error.h"
#include "tests/integration/broken_adapters.h"
#include "tests/integration/daemon_process.h"
#include "tests/integration/demo_requests.h"
#include "tests/integration/raw_calls.h"

namespace lorad::integration {
namespace {

using absl::StatusCode;
using Messages = std::vector<v1::UploadAdapterRequest>;
namespace fs = std::filesystem;

constexpr const char* kFiles[] = {"adapter_config.json", "adapter_model.safetensors"};

class BadUploadTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(root());
    ASSERT_TRUE(daemon_.Start({"--adapter-root", root(), "--max-upload-bytes", "1MiB", "--adapter",
                               fmt::format("arith={}", DemoAdapterPath("arith"))}));
    client_ = std::make_unique<Client>(ClientOptions{.address = daemon_.address()});
  }

  // Nothing changed: the one adapter works, there is no other, and nothing lies half done in the
  // store.
  void TearDown() override {
    const EvalCase c = LoadEval("arith", 1)[0];
    const Answer answer = Ask(client_.get(), GreedyRequest("arith", c.prompt));
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_EQ(answer.text, c.expected);
    EXPECT_EQ(answer.finish.adapter_version(), 1);
    EXPECT_TRUE(Eventually([this] { return fs::is_empty(daemon_.state_dir() + "/staging"); }));
    const auto listed = client_->ListAdapters();
    ASSERT_TRUE(listed.ok()) << listed.status();
    EXPECT_EQ(listed->size(), 1U);
  }

  std::string root() const { return directory_ / "root"; }

  absl::Status Create(const std::string& id, const std::string& path, bool replace = false) {
    v1::CreateAdapterRequest request;
    request.set_adapter_id(id);
    request.set_path(path);
    request.set_replace(replace);
    return client_->CreateAdapter(request).status();
  }

  absl::Status Send(const Messages& messages, UploadEnd end = UploadEnd::kHalfClose) {
    return UploadMessages(daemon_.address(), messages, end).status();
  }

  size_t StagedBytes() const {
    size_t bytes = 0;
    std::error_code gone;
    const std::string staging = daemon_.state_dir() + "/staging";
    for (const auto& entry : fs::recursive_directory_iterator(staging, gone)) {
      if (entry.is_regular_file(gone)) bytes += entry.file_size(gone);
    }
    return bytes;
  }

  const TempDirectory directory_;
  DaemonProcess daemon_;
  std::unique_ptr<Client> client_;
};

void ExpectError(const absl::Status& status, StatusCode code, const std::string& reason,
                 const std::string& field) {
  const ErrorDetails details = GetErrorDetails(status);
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_EQ(details.reason, reason) << status;
  EXPECT_EQ(details.fields.empty() ? "" : details.fields[0].field, field) << status;
}

// A whole correct upload of a demo adapter: the header, then one chunk a file.
Messages GoodUpload(const std::string& id, const std::string& demo) {
  Messages messages(3);
  auto* header = messages[0].mutable_header();
  header->set_adapter_id(id);
  for (int i = 0; i < 2; ++i) {
    const std::string data = ReadWholeFile(DemoAdapterPath(demo) + "/" + kFiles[i]);
    auto* file = header->add_files();
    file->set_name(kFiles[i]);
    file->set_size_bytes(static_cast<int64_t>(data.size()));
    auto* chunk = messages[static_cast<size_t>(i) + 1].mutable_chunk();
    chunk->set_file_index(i);
    chunk->set_data(data);
  }
  return messages;
}

TEST_F(BadUploadTest, TheGoodUploadThatTheOthersSpoilWorks) {
  const auto made =
      UploadMessages(daemon_.address(), GoodUpload("fine", "sentiment"), UploadEnd::kHalfClose);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->name(), "adapters/fine");
  const EvalCase c = LoadEval("sentiment", 1)[0];
  EXPECT_EQ(Ask(client_.get(), GreedyRequest("fine", c.prompt)).text, c.expected);
  EXPECT_TRUE(client_->DeleteAdapter("fine", false).ok());
}

TEST_F(BadUploadTest, BadIdsAreRefused) {
  for (const std::string& id :
       {std::string("../x"), std::string(), std::string("Upper"), std::string(200, 'a'),
        std::string("a/b/c"), std::string("/a"), std::string("a/"), std::string("A/b"),
        std::string("adapters/a"), std::string("a/.."), std::string(".hidden"), std::string("a..b"),
        std::string("nul\0l", 5), std::string("sp ace")}) {
    SCOPED_TRACE(id);
    ExpectError(Send(GoodUpload(id, "sentiment")), StatusCode::kInvalidArgument, "INVALID_FIELD",
                "adapter_id");
    ExpectError(Create(id, root()), StatusCode::kInvalidArgument, "INVALID_FIELD", "adapter_id");
  }
}

TEST_F(BadUploadTest, OnlyPathsBelowTheRootsAreRead) {
  const std::string outside = directory_ / "outside";
  WriteFlawedAdapter("sentiment", Flaw::kNone, outside);
  WriteFlawedAdapter("sentiment", Flaw::kNone, root() + "/inside");
  WriteFlawedAdapter("sentiment", Flaw::kNone, directory_ / "root-beside");
  fs::create_directory_symlink(outside, root() + "/link");
  fs::create_directories(root() + "/linked-file");
  for (const char* file : kFiles) {
    fs::create_symlink(outside + "/" + file, root() + "/linked-file/" + file);
  }
  const std::string denied = "PATH_NOT_ALLOWED";
  for (const std::string& path :
       {outside, root() + "/../outside", root() + "/link", root() + "/absent", directory_.path(),
        directory_ / "root-beside", std::string("/etc")}) {
    SCOPED_TRACE(path);
    ExpectError(Create("x", path), StatusCode::kInvalidArgument, denied, "path");
  }
  ExpectError(Create("x", "root/inside"), StatusCode::kInvalidArgument, "INVALID_FIELD", "path");
  ExpectError(Create("x", ""), StatusCode::kInvalidArgument, "INVALID_FIELD", "path");
  ExpectError(Create("x", root() + "/linked-file"), StatusCode::kInvalidArgument, "INVALID_FIELD",
              "path");
  ExpectError(Create("x", root()), StatusCode::kInvalidArgument, "PATH_NOT_FOUND", "path");
  EXPECT_TRUE(Create("x", root() + "/inside").ok());
  EXPECT_TRUE(client_->DeleteAdapter("x", false).ok());
}

TEST_F(BadUploadTest, MessagesOutOfOrderAreRefused) {
  const Messages good = GoodUpload("x", "sentiment");
  const auto invalid = StatusCode::kInvalidArgument;
  ExpectError(Send({}), invalid, "INVALID_FIELD", "header");
  ExpectError(Send({good[1]}), invalid, "INVALID_FIELD", "header");
  ExpectError(Send({v1::UploadAdapterRequest()}), invalid, "INVALID_FIELD", "header");
  ExpectError(Send({good[0], good[0]}), invalid, "INVALID_FIELD", "chunk");
  Messages bad = good;
  bad[2].mutable_chunk()->set_offset(7);
  ExpectError(Send(bad), invalid, "INVALID_FIELD", "offset");
  bad = good;
  bad[1].mutable_chunk()->set_file_index(2);
  ExpectError(Send(bad), invalid, "INVALID_FIELD", "file_index");
  bad = good;
  bad[1].mutable_chunk()->set_file_index(-1);
  ExpectError(Send(bad), invalid, "INVALID_FIELD", "file_index");
  bad = good;
  bad[2].mutable_chunk()->mutable_data()->append("more");
  ExpectError(Send(bad), invalid, "INVALID_FIELD", "data");
}

TEST_F(BadUploadTest, HeadersThatDeclareNonsenseAreRefused) {
  const Messages good = GoodUpload("x", "sentiment");
  const auto spoilt = [&good](const std::function<void(v1::UploadHeader*)>& spoil) {
    Messages bad = good;
    spoil(bad[0].mutable_header());
    return bad;
  };
  using H = v1::UploadHeader;
  const auto invalid = StatusCode::kInvalidArgument;
  ExpectError(Send(spoilt([](H* h) { h->clear_files(); })), invalid, "INVALID_FIELD", "files");
  ExpectError(Send(spoilt([](H* h) { h->mutable_files()->RemoveLast(); })), invalid,
              "INVALID_FIELD", "files");
  ExpectError(Send(spoilt([](H* h) { h->mutable_files(1)->set_name("adapter_model.bin"); })),
              invalid, "INVALID_FIELD", "files[1].name");
  ExpectError(Send(spoilt([](H* h) { h->mutable_files(0)->set_name("../adapter_config.json"); })),
              invalid, "INVALID_FIELD", "files[0].name");
  ExpectError(Send(spoilt([](H* h) { h->mutable_files(1)->set_name(kFiles[0]); })), invalid,
              "INVALID_FIELD", "files[1].name");
  ExpectError(Send(spoilt([](H* h) { h->mutable_files(1)->set_size_bytes(2 << 20); })), invalid,
              "FILE_TOO_LARGE", "files[1].size_bytes");
  ExpectError(Send(spoilt([](H* h) { h->mutable_files(1)->set_size_bytes(INT64_MAX); })), invalid,
              "FILE_TOO_LARGE", "files[1].size_bytes");
  ExpectError(Send(spoilt([](H* h) { h->mutable_files(1)->set_size_bytes(-1); })), invalid,
              "INVALID_FIELD", "files[1].size_bytes");
  ExpectError(Send(spoilt([](H* h) { h->mutable_files(1)->set_sha256("abc"); })), invalid,
              "INVALID_FIELD", "files[1].sha256");
}

TEST_F(BadUploadTest, WhatArrivesDamagedOrInPartIsRefused) {
  Messages wrong_hash = GoodUpload("x", "sentiment");
  wrong_hash[0].mutable_header()->mutable_files(1)->set_sha256(std::string(64, 'a'));
  ExpectError(Send(wrong_hash), StatusCode::kDataLoss, "CHECKSUM_MISMATCH", "");

  Messages half = GoodUpload("x", "sentiment");
  std::string* data = half[2].mutable_chunk()->mutable_data();
  data->resize(data->size() / 2);
  ExpectError(Send(half), StatusCode::kInvalidArgument, "UPLOAD_INCOMPLETE", "data");
  EXPECT_EQ(Send(half, UploadEnd::kCancel).code(), StatusCode::kCancelled);

  // The server has all bytes, but not yet the end of the stream.
  const Messages whole = GoodUpload("x", "sentiment");
  size_t bytes = 0;
  for (const auto& message : whole) bytes += message.chunk().data().size();
  const auto arrived = [this, bytes] {
    EXPECT_TRUE(Eventually([&] { return StagedBytes() == bytes; })) << StagedBytes();
  };
  EXPECT_EQ(UploadMessages(daemon_.address(), whole, UploadEnd::kCancel, arrived).status().code(),
            StatusCode::kCancelled);
}

// A client that holds an upload open and sends nothing: its half adapter does not stay for ever.
TEST(SlowUploadTest, ASilentClientIsGivenUpAndASlowOneIsNot) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.Start({"--upload-idle-timeout", "0.4"}));
  const auto staging = [&daemon] { return daemon.state_dir() + "/staging"; };
  Messages half = GoodUpload("x", "sentiment");
  half.pop_back();
  const auto given_up = [&] {
    EXPECT_TRUE(Eventually([&] { return !fs::is_empty(staging()); }));
    EXPECT_TRUE(Eventually([&] { return fs::is_empty(staging()); }));
  };
  const absl::Status status =
      UploadMessages(daemon.address(), half, UploadEnd::kHalfClose, given_up).status();
  ExpectError(status, StatusCode::kDeadlineExceeded, "UPLOAD_STALLED", "");

  // Longer than the limit in all, but never silent for so long.
  Messages slow = GoodUpload("x", "sentiment");
  const v1::UploadChunk weights = slow[2].chunk();
  slow.pop_back();
  const size_t part = weights.data().size() / 8 + 1;
  for (size_t at = 0; at < weights.data().size(); at += part) {
    auto* chunk = slow.emplace_back().mutable_chunk();
    chunk->set_file_index(1);
    chunk->set_offset(static_cast<int64_t>(at));
    chunk->set_data(weights.data().substr(at, part));
  }
  const auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(100)); };
  const auto uploaded =
      UploadMessages(daemon.address(), slow, UploadEnd::kHalfClose, nullptr, pause);
  EXPECT_TRUE(uploaded.ok()) << uploaded.status();
}

struct FlawCase {
  Flaw flaw;
  StatusCode code;
  std::string reason;
};

const FlawCase kFlaws[] = {
    {Flaw::kGarbageWeights, StatusCode::kInvalidArgument, "SAFETENSORS_INVALID"},
    {Flaw::kHalfPair, StatusCode::kInvalidArgument, "ADAPTER_HALF_PAIR"},
    {Flaw::kWrongBase, StatusCode::kFailedPrecondition, "ADAPTER_WRONG_BASE"},
    {Flaw::kNotANumber, StatusCode::kInvalidArgument, "ADAPTER_NON_FINITE"},
    {Flaw::kGarbageConfig, StatusCode::kInvalidArgument, "INVALID_FIELD"},
};

TEST_F(BadUploadTest, AdaptersThatCannotRunAreRefusedBothWays) {
  for (const FlawCase& c : kFlaws) {
    SCOPED_TRACE(c.reason);
    const std::string path = root() + "/" + c.reason;
    WriteFlawedAdapter("sentiment", c.flaw, path);
    const absl::Status uploads[] = {
        client_->UploadAdapter({.adapter_id = "x", .directory = path}, nullptr).status(),
        // A replacement that is refused leaves the old one: TearDown checks it.
        client_->UploadAdapter({.adapter_id = "arith", .directory = path, .replace = true}, nullptr)
            .status(),
        Create("x", path), Create("arith", path, /*replace=*/true)};
    for (const absl::Status& status : uploads) {
      EXPECT_EQ(status.code(), c.code) << status;
      EXPECT_EQ(GetErrorDetails(status).reason, c.reason) << status;
      EXPECT_FALSE(GetErrorDetails(status).fields.empty()) << status;
    }
  }
  WriteFlawedAdapter("sentiment", Flaw::kNoWeights, root() + "/pickle");
  ExpectError(Create("x", root() + "/pickle"), StatusCode::kInvalidArgument, "PATH_NOT_FOUND",
              "path");
}

TEST_F(BadUploadTest, AnAdapterThatExistsIsNotReplacedUnasked) {
  WriteFlawedAdapter("sentiment", Flaw::kNone, root() + "/fine");
  for (const absl::Status& status :
       {Create("arith", root() + "/fine"), Send(GoodUpload("arith", "sentiment"))}) {
    ExpectError(status, StatusCode::kAlreadyExists, "ADAPTER_EXISTS", "");
    EXPECT_EQ(GetErrorDetails(status).resource_name, "adapters/arith");
  }
}

TEST_F(BadUploadTest, WhatIsNotThereIsNotFound) {
  ExpectError(client_->GetAdapter("nobody").status(), StatusCode::kNotFound, "ADAPTER_NOT_FOUND",
              "");
  ExpectError(client_->DeleteAdapter("nobody", false), StatusCode::kNotFound, "ADAPTER_NOT_FOUND",
              "");
  EXPECT_TRUE(client_->DeleteAdapter("nobody", true).ok());
}

}  // namespace
}  // namespace lorad::integration
