// Adapters as resources, through a real daemon: etags, versions and rollback, equal files, what
// fits, and a directory kept in step by loractl. Tenants, pins and the watch are in
// tenants_test.cc.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "client/error.h"
#include "tests/integration/daemon_process.h"
#include "tests/integration/demo_requests.h"

namespace lorad::integration {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<v1::Adapter> Upload(Client* client, const std::string& name, const std::string& demo,
                                   bool replace = false) {
  return client->UploadAdapter(
      {.adapter_id = name, .directory = DemoAdapterPath(demo), .replace = replace}, nullptr);
}

// The answer of one of the demo's tasks, which only its own adapter gets right.
std::string TaskAnswer(Client* client, const std::string& adapter, const std::string& task) {
  return Ask(client, GreedyRequest(adapter, LoadEval(task, 1)[0].prompt)).text;
}
std::string Expected(const std::string& task) { return LoadEval(task, 1)[0].expected; }

std::string ReasonOf(const absl::Status& status) { return GetErrorDetails(status).reason; }

class LifecycleTest : public ::testing::Test {
 protected:
  void Start(const std::vector<std::string>& options = {}) {
    ASSERT_TRUE(daemon_.Start(options));
    operator_ = std::make_unique<Client>(ClientOptions{.address = daemon_.address()});
    acme_ = std::make_unique<Client>(ClientOptions{.address = daemon_.address(), .tenant = "acme"});
  }

  DaemonProcess daemon_;
  std::unique_ptr<Client> operator_, acme_;
};

TEST_F(LifecycleTest, VersionsCanBeAskedForAndRolledBack) {
  Start({"--keep-versions", "1"});
  for (const char* demo : {"arith", "json", "sort"}) {
    ASSERT_TRUE(Upload(operator_.get(), "bot", demo, /*replace=*/true).ok());
  }
  EXPECT_EQ(TaskAnswer(operator_.get(), "bot", "sort"), Expected("sort"));
  EXPECT_EQ(TaskAnswer(operator_.get(), "bot@2", "json"), Expected("json"));
  const absl::Status gone = Ask(operator_.get(), GreedyRequest("bot@1", "a", 1)).status;
  EXPECT_TRUE(absl::IsNotFound(gone));
  EXPECT_EQ(ReasonOf(gone), "VERSION_NOT_FOUND");

  v1::RollbackAdapterRequest rollback;
  rollback.set_name("bot");
  const auto back = operator_->RollbackAdapter(rollback);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->version(), 4);
  EXPECT_EQ(back->origin_version(), 2);
  EXPECT_EQ(TaskAnswer(operator_.get(), "bot", "json"), Expected("json"));

  // It is all there after a crash, too.
  EXPECT_EQ(daemon_.Kill().signal, SIGKILL);
  Start({"--keep-versions", "1"});
  const auto versions = operator_->ListAdapterVersions("bot");
  ASSERT_TRUE(versions.ok()) << versions.status();
  ASSERT_EQ(versions->size(), 2U);
  EXPECT_EQ((*versions)[0].version(), 4);
  EXPECT_EQ((*versions)[1].version(), 3);
  EXPECT_EQ(TaskAnswer(operator_.get(), "bot", "json"), Expected("json"));
}

TEST_F(LifecycleTest, AnOldEtagChangesNothing) {
  Start();
  const auto first = Upload(operator_.get(), "bot", "arith");
  ASSERT_TRUE(first.ok()) << first.status();
  v1::UpdateAdapterRequest update;
  update.set_name("bot");
  update.set_etag(first->etag());
  (*update.mutable_settings()->mutable_labels())["team"] = "a";
  const auto second = operator_->UpdateAdapter(update);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_NE(second->etag(), first->etag());
  EXPECT_EQ(second->version(), 1);

  v1::RollbackAdapterRequest rollback;
  rollback.set_name("bot");
  rollback.set_etag(first->etag());
  const std::vector<absl::Status> late = {operator_->UpdateAdapter(update).status(),
                                          operator_->RollbackAdapter(rollback).status(),
                                          operator_->DeleteAdapter("bot", false, first->etag()),
                                          operator_
                                              ->UploadAdapter({.adapter_id = "bot",
                                                               .directory = DemoAdapterPath("json"),
                                                               .replace = true,
                                                               .etag = first->etag()},
                                                              nullptr)
                                              .status()};
  for (const absl::Status& status : late) {
    EXPECT_TRUE(absl::IsAborted(status)) << status;
    EXPECT_EQ(ReasonOf(status), "ETAG_MISMATCH");
  }
  const auto now = operator_->GetAdapter("bot");
  ASSERT_TRUE(now.ok());
  EXPECT_EQ(now->etag(), second->etag());
  EXPECT_EQ(now->settings().labels().at("team"), "a");
}

TEST_F(LifecycleTest, TheSameFilesAgainAreNoNewVersion) {
  Start();
  ASSERT_TRUE(Upload(operator_.get(), "bot", "arith").ok());
  for (const bool replace : {false, true}) {
    const auto again = Upload(operator_.get(), "bot", "arith", replace);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->version(), 1);
  }
}

TEST_F(LifecycleTest, WhatFitsIsWhatFits) {
  Start({"--pool-bytes", "4MiB"});
  v1::GetFitRequest request;
  request.set_rank(16);
  const auto fit = operator_->GetFit(request);
  ASSERT_TRUE(fit.ok()) << fit.status();
  const auto pool = operator_->GetPool(0);
  ASSERT_TRUE(pool.ok());
  EXPECT_EQ(fit->adapters_in_pool(), pool->total_pages() / fit->adapter_pages());
  EXPECT_EQ(fit->adapters_in_free_pages(), pool->free_pages() / fit->adapter_pages());
  EXPECT_EQ(fit->sequences_in_pool(), pool->total_pages() / fit->sequence_pages());
}

TEST_F(LifecycleTest, LoractlKeepsADirectoryInStep) {
  Start();
  const TempDirectory directory;
  const auto put = [&](const std::string& name, const std::string& demo) {
    fs::create_directories(directory / name);
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"}) {
      fs::copy_file(DemoAdapterPath(demo) + "/" + file, directory / (name + "/" + file),
                    fs::copy_options::overwrite_existing);
    }
  };
  const auto sync = [&] {
    return RunProgram({LoractlProgram(), "--address", daemon_.address(), "adapters", "sync",
                       directory.path(), "--prune"});
  };
  put("one", "arith");
  put("acme/two", "json");
  std::ofstream(directory / "one/lorad.json") << R"({"aliases": ["prod"], "pinned": true})";
  Finished done = sync();
  EXPECT_EQ(done.code, 0) << done.out << done.err;
  EXPECT_EQ(TaskAnswer(operator_.get(), "prod", "arith"), Expected("arith"));
  EXPECT_EQ(TaskAnswer(acme_.get(), "two", "json"), Expected("json"));
  EXPECT_TRUE(operator_->GetAdapter("one")->settings().pinned());

  done = sync();
  EXPECT_EQ(done.code, 0);
  EXPECT_EQ(operator_->GetAdapter("one")->version(), 1) << "nothing was to be done";

  put("one", "sort");
  fs::remove_all(directory / "acme");
  ASSERT_TRUE(Upload(operator_.get(), "by-hand", "json").ok());
  done = sync();
  EXPECT_EQ(done.code, 0) << done.out << done.err;
  EXPECT_EQ(TaskAnswer(operator_.get(), "prod", "sort"), Expected("sort"));
  EXPECT_TRUE(absl::IsNotFound(operator_->GetAdapter("acme/two").status()));
  EXPECT_TRUE(operator_->GetAdapter("by-hand").ok()) << "what it did not make is not pruned";
}

}  // namespace
}  // namespace lorad::integration
