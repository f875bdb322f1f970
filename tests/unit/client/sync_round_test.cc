#include "client/loractl/sync_round.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/adapter_files.h"
#include "client/loractl/sync_settings.h"
#include "tests/unit/client/fake_server.h"
#include "tests/unit/client/scratch_directory.h"

namespace lorad::loractl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

LocalAdapter Local(const std::string& sha256) {
  LocalAdapter local;
  local.id = "foo";
  local.config_sha256 = "config";
  local.sha256 = sha256;
  return local;
}

v1::Adapter RemoteOf(const LocalAdapter& local, const std::string& manager) {
  v1::Adapter remote;
  remote.set_config_sha256(local.config_sha256);
  remote.set_sha256(local.sha256);
  *remote.mutable_settings() = local.settings;
  if (!manager.empty()) (*remote.mutable_settings()->mutable_labels())[kManagedLabel] = manager;
  return remote;
}

TEST(SyncDecisionTest, Table) {
  const SyncOptions sync{.source = "sync"};
  const SyncOptions adopt{.source = "sync", .adopt = true};
  const LocalAdapter local = Local("w");
  EXPECT_EQ(Decide(local, nullptr, sync), SyncAction::kCreated);

  v1::Adapter remote = RemoteOf(local, "sync");
  EXPECT_EQ(Decide(local, &remote, sync), SyncAction::kUnchanged);
  remote.set_sha256("other");
  EXPECT_EQ(Decide(local, &remote, sync), SyncAction::kReplaced);
  remote = RemoteOf(local, "sync");
  remote.set_config_sha256("other");
  EXPECT_EQ(Decide(local, &remote, sync), SyncAction::kReplaced);
  remote = RemoteOf(local, "sync");
  remote.mutable_settings()->set_pinned(true);
  EXPECT_EQ(Decide(local, &remote, sync), SyncAction::kUpdated);

  for (const char* manager : {"", "other"}) {
    remote = RemoteOf(local, manager);
    EXPECT_EQ(Decide(local, &remote, sync), SyncAction::kConflict) << manager;
    EXPECT_EQ(Decide(local, &remote, adopt), SyncAction::kUpdated) << manager;
    remote.set_sha256("other");
    EXPECT_EQ(Decide(local, &remote, sync), SyncAction::kConflict) << manager;
    EXPECT_EQ(Decide(local, &remote, adopt), SyncAction::kReplaced) << manager;
  }
}

class SyncRoundTest : public ::testing::Test {
 protected:
  // "name action" or "name action: reason".
  std::vector<std::string> Sync(SyncOptions options = {}) {
    Client client({.address = server_.address(), .tenant = options.tenant});
    SyncDirectory directory(scratch_.path().string());
    const auto locals = directory.Read();
    EXPECT_TRUE(locals.ok()) << locals.status();
    rows_.clear();
    auto rows = SyncRound(&client, {}, options).Run(*locals);
    EXPECT_TRUE(rows.ok()) << rows.status();
    if (rows.ok()) rows_ = *std::move(rows);
    std::vector<std::string> out;
    for (const SyncRow& row : rows_) {
      EXPECT_EQ(row.code == kOk, row.reason.empty());
      out.push_back(row.name + " " + std::string(SyncActionName(row.action)) +
                    (row.reason.empty() ? "" : ": " + row.reason));
    }
    return out;
  }

  // What the server has: these weights, with the label unless `manager` is empty.
  void Seed(const std::string& name, const std::string& weights, const std::string& manager) {
    const ScratchDirectory files;
    files.WriteAdapter("x", weights);
    v1::AdapterSettings settings;
    if (!manager.empty()) (*settings.mutable_labels())[kManagedLabel] = manager;
    const auto hash = [&files](std::string_view file) {
      return DescribeFile((files.path() / "x" / file).string())->sha256();
    };
    server_.adapters.Seed(name, settings, hash(kConfigFile), hash(kWeightsFile));
  }

  FakeServer server_;
  ScratchDirectory scratch_;
  std::vector<SyncRow> rows_;
};

TEST_F(SyncRoundTest, CreatesReplacesUpdatesAndLeavesAlone) {
  scratch_.WriteAdapter("new", "w");
  scratch_.WriteAdapter("acme/of-tenant", "w");
  scratch_.WriteAdapter("other-weights", "w");
  scratch_.WriteAdapter("other-settings", "w");
  scratch_.Write("other-settings/lorad.json", R"({"pinned": true})");
  scratch_.WriteAdapter("same", "w");
  Seed("adapters/other-weights", "old", "sync");
  Seed("adapters/other-settings", "w", "sync");
  Seed("adapters/same", "w", "sync");
  EXPECT_THAT(Sync(), ElementsAre("adapters/acme/of-tenant created", "adapters/new created",
                                  "adapters/other-settings updated",
                                  "adapters/other-weights replaced", "adapters/same unchanged"));
  EXPECT_THAT(
      server_.adapters.changes(),
      ElementsAre("UploadAdapter adapters/acme/of-tenant", "UploadAdapter adapters/new",
                  "UpdateAdapter adapters/other-settings", "UploadAdapter adapters/other-weights"));
  EXPECT_EQ(server_.adapters.Find("adapters/new")->settings().labels().at(kManagedLabel), "sync");
  EXPECT_TRUE(server_.adapters.Find("adapters/other-settings")->settings().pinned());
  EXPECT_EQ(rows_[3].version, 2);
  // And then all is equal.
  for (const std::string& row : Sync()) EXPECT_THAT(row, HasSubstr("unchanged"));
  EXPECT_EQ(server_.adapters.changes().size(), 4u);
}

TEST_F(SyncRoundTest, SettingsThatTheDirectoryDoesNotNameAreReset) {
  scratch_.WriteAdapter("foo", "w");
  Seed("adapters/foo", "w", "sync");
  server_.adapters.Change("adapters/foo", [](v1::Adapter* a) {
    a->mutable_settings()->set_pinned(true);
    a->mutable_settings()->set_description("by hand");
  });
  EXPECT_THAT(Sync(), ElementsAre("adapters/foo updated"));
  EXPECT_FALSE(server_.adapters.Find("adapters/foo")->settings().pinned());
}

TEST_F(SyncRoundTest, WhatOthersManageIsAConflictUnlessAdopted) {
  scratch_.WriteAdapter("theirs", "w");
  scratch_.WriteAdapter("nobodys", "w");
  Seed("adapters/theirs", "old", "they");
  Seed("adapters/nobodys", "w", "");
  EXPECT_THAT(Sync(), ElementsAre(HasSubstr("adapters/nobodys conflict: not managed by sync"),
                                  HasSubstr("adapters/theirs conflict: managed by \"they\"")));
  EXPECT_EQ(rows_[0].code, kRefused);
  EXPECT_THAT(server_.adapters.changes(), ElementsAre());
  EXPECT_THAT(Sync({.adopt = true}),
              ElementsAre("adapters/nobodys updated", "adapters/theirs replaced"));
  EXPECT_EQ(server_.adapters.Find("adapters/theirs")->settings().labels().at(kManagedLabel),
            "sync");
}

TEST_F(SyncRoundTest, PruneDeletesOnlyWhatThisSourceManages) {
  scratch_.WriteAdapter("kept", "w");
  for (const char* name : {"adapters/kept", "adapters/old", "adapters/acme/old"}) {
    Seed(name, "w", "sync");
  }
  Seed("adapters/theirs", "w", "they");
  Seed("adapters/nobodys", "w", "");
  EXPECT_THAT(Sync(), ElementsAre("adapters/kept unchanged"));
  EXPECT_THAT(
      Sync({.prune = true}),
      ElementsAre("adapters/kept unchanged", "adapters/acme/old deleted", "adapters/old deleted"));
  EXPECT_THAT(server_.adapters.changes(),
              ElementsAre("DeleteAdapter adapters/acme/old", "DeleteAdapter adapters/old"));
}

TEST_F(SyncRoundTest, PruneKeepsWhatTheDirectoryHasInABadState) {
  scratch_.WriteAdapter("good", "w");
  scratch_.WriteAdapter("bad", "w");
  scratch_.Write("bad/lorad.json", "{");
  // Whatever it is, tenant acme's adapters may be meant.
  std::filesystem::create_directory_symlink("nowhere", scratch_.path() / "acme");
  for (const char* name : {"adapters/bad", "adapters/acme/foo", "adapters/good"}) {
    Seed(name, "w", "sync");
  }
  EXPECT_THAT(Sync({.prune = true}),
              ElementsAre(HasSubstr("adapters/acme failed"), HasSubstr("adapters/bad failed"),
                          "adapters/good unchanged"));
  EXPECT_EQ(rows_[1].code, kUsage);
  EXPECT_THAT(server_.adapters.changes(), ElementsAre());
}

TEST_F(SyncRoundTest, AnEmptyDirectoryPrunesOnlyWhenAllowed) {
  Seed("adapters/foo", "w", "sync");
  EXPECT_THAT(Sync({.prune = true}), ElementsAre(HasSubstr("adapters/foo failed")));
  EXPECT_TRUE(server_.adapters.Find("adapters/foo").has_value());
  EXPECT_THAT(Sync({.prune = true, .allow_empty = true}), ElementsAre("adapters/foo deleted"));
  EXPECT_FALSE(server_.adapters.Find("adapters/foo").has_value());
}

TEST_F(SyncRoundTest, ADryRunSaysTheSameAndDoesNothing) {
  scratch_.WriteAdapter("new", "w");
  scratch_.WriteAdapter("changed", "w");
  Seed("adapters/changed", "old", "sync");
  Seed("adapters/old", "w", "sync");
  EXPECT_THAT(
      Sync({.prune = true, .dry_run = true}),
      ElementsAre("adapters/changed replaced", "adapters/new created", "adapters/old deleted"));
  EXPECT_THAT(server_.adapters.changes(), ElementsAre());
}

TEST_F(SyncRoundTest, OneRefusalDoesNotStopTheOthers) {
  scratch_.WriteAdapter("a", "w");
  scratch_.WriteAdapter("b", "w");
  scratch_.Write("b/lorad.json", R"({"pinned": true})");
  Seed("adapters/b", "w", "sync");
  server_.adapters.errors["UploadAdapter"] = RichError(
      grpc::StatusCode::INVALID_ARGUMENT, "rank 999 exceeds 256", "files[0]", "INVALID_FIELD", 0);
  EXPECT_THAT(Sync(), ElementsAre(HasSubstr("adapters/a failed: INVALID_ARGUMENT: rank 999"),
                                  "adapters/b updated"));
  EXPECT_EQ(rows_[0].code, kRefused);
}

TEST_F(SyncRoundTest, AChangeInBetweenIsReadAndDecidedOnAgain) {
  scratch_.WriteAdapter("foo", "w");
  Seed("adapters/foo", "old", "sync");
  int changes = 0;
  server_.adapters.before_change = [&](const std::string&) {
    if (++changes <= 2) server_.adapters.Change("adapters/foo", [](v1::Adapter*) {});
  };
  EXPECT_THAT(Sync(), ElementsAre("adapters/foo replaced"));
  EXPECT_EQ(changes, 3);
}

TEST_F(SyncRoundTest, AnAdapterThatSomebodyElseTookMeanwhileIsAConflict) {
  scratch_.WriteAdapter("foo", "w");
  Seed("adapters/foo", "old", "sync");
  server_.adapters.before_change = [&](const std::string&) {
    server_.adapters.Change("adapters/foo", [](v1::Adapter* a) {
      (*a->mutable_settings()->mutable_labels())[kManagedLabel] = "they";
    });
  };
  EXPECT_THAT(Sync(), ElementsAre(HasSubstr("adapters/foo conflict: managed by \"they\"")));
  EXPECT_THAT(server_.adapters.changes(), ElementsAre());
}

TEST_F(SyncRoundTest, OneThatNeverRestsIsGivenUp) {
  scratch_.WriteAdapter("foo", "w");
  scratch_.Write("foo/lorad.json", R"({"pinned": true})");
  Seed("adapters/foo", "w", "sync");
  server_.adapters.before_change = [&](const std::string&) {
    server_.adapters.Change("adapters/foo", [](v1::Adapter*) {});
  };
  EXPECT_THAT(Sync(), ElementsAre(HasSubstr("adapters/foo failed: ABORTED")));
}

TEST_F(SyncRoundTest, CreatedAndDeletedByOthersMeanwhile) {
  scratch_.WriteAdapter("foo", "w");
  server_.adapters.before_change = [&](const std::string&) {
    if (!server_.adapters.Find("adapters/foo")) Seed("adapters/foo", "theirs", "they");
  };
  EXPECT_THAT(Sync(), ElementsAre(HasSubstr("adapters/foo conflict")));

  server_.adapters.Remove("adapters/foo");
  Seed("adapters/foo", "old", "sync");
  server_.adapters.before_change = [&](const std::string&) {
    server_.adapters.before_change = nullptr;
    server_.adapters.Remove("adapters/foo");
  };
  EXPECT_THAT(Sync(), ElementsAre("adapters/foo created"));
}

TEST_F(SyncRoundTest, PruneGuardsWithTheEtag) {
  scratch_.WriteAdapter("foo", "w");
  Seed("adapters/foo", "w", "sync");
  Seed("adapters/old", "w", "sync");
  server_.adapters.before_change = [&](const std::string&) {
    server_.adapters.Change(
        "adapters/old", [](v1::Adapter* a) { a->mutable_settings()->mutable_labels()->clear(); });
  };
  EXPECT_THAT(Sync({.prune = true}),
              ElementsAre("adapters/foo unchanged", "adapters/old unchanged"));
  EXPECT_TRUE(server_.adapters.Find("adapters/old").has_value());
}

TEST_F(SyncRoundTest, ARefusalThatIsNoRaceIsNotRepeated) {
  scratch_.WriteAdapter("foo", "w");
  server_.adapters.errors["UploadAdapter"] =
      RichError(grpc::StatusCode::ALREADY_EXISTS, "the alias is an adapter", "", "ALIAS_TAKEN", 0);
  int calls = 0;
  server_.adapters.before_change = [&](const std::string&) { ++calls; };
  EXPECT_THAT(Sync(), ElementsAre(HasSubstr("the alias is an adapter")));
  EXPECT_EQ(calls, 1);
}

TEST_F(SyncRoundTest, AnAliasOfThatNameIsAnotherAdapter) {
  scratch_.WriteAdapter("foo", "w");
  Seed("adapters/bar", "w", "");
  server_.adapters.Change("adapters/bar",
                          [](v1::Adapter* a) { a->mutable_settings()->add_aliases("foo"); });
  server_.adapters.errors["UploadAdapter"] =
      RichError(grpc::StatusCode::ALREADY_EXISTS, "foo is an alias", "", "ALIAS_TAKEN", 0);
  EXPECT_THAT(Sync(), ElementsAre(HasSubstr("adapters/foo failed: ALREADY_EXISTS")));
}

TEST_F(SyncRoundTest, ATenantSyncsItsOwn) {
  scratch_.WriteAdapter("foo", "w");
  Seed("adapters/foo", "w", "sync");       // public: not the tenant's
  Seed("adapters/acme/old", "w", "sync");  // its own
  EXPECT_THAT(Sync({.tenant = "acme", .prune = true}),
              ElementsAre("adapters/acme/foo created", "adapters/acme/old deleted"));
  EXPECT_TRUE(server_.adapters.Find("adapters/foo").has_value());
  scratch_.WriteAdapter("umbrella/bar", "w");
  EXPECT_THAT(Sync({.tenant = "acme"}),
              ElementsAre("adapters/acme/foo unchanged",
                          HasSubstr("adapters/acme/umbrella/bar failed: INVALID_ARGUMENT")));
}

}  // namespace
}  // namespace lorad::loractl
