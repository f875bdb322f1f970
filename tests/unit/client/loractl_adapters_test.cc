// loractl adapters, except sync (adapter_sync_test.cc).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/loractl/adapter_commands.h"
#include "client/loractl/adapter_views.h"
#include "tests/unit/client/run_loractl.h"
#include "tests/unit/client/scratch_directory.h"

namespace lorad::loractl {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST_F(LoractlTest, Adapters) {
  v1::Adapter& adapter = server_.adapters.adapters.emplace_back();
  adapter.set_name("adapters/pirate");
  adapter.set_state(v1::Adapter::RESIDENT);
  adapter.set_rank(16);
  EXPECT_THAT(Run({"adapters", "list"}).out, AllOf(HasSubstr("pirate"), HasSubstr("RESIDENT")));
  EXPECT_THAT(Run({"adapters", "list", "--json"}).out, HasSubstr(R"("rank":16)"));
  EXPECT_THAT(Run({"adapters", "get", "adapters/pirate"}).out, HasSubstr("adapters/pirate"));
  EXPECT_EQ(Run({"adapters", "get", "adapters/none"}).code, kRefused);
  EXPECT_EQ(Run({"adapters", "create", "pirate", "/srv/pirate"}).code, kRefused);
  EXPECT_THAT(Run({"adapters", "create", "pirate", "/srv/pirate", "--replace"}).out,
              HasSubstr("version"));
  EXPECT_EQ(Run({"adapters", "delete", "adapters/pirate"}).code, kOk);
  EXPECT_EQ(Run({"adapters", "delete", "adapters/pirate"}).code, kRefused);
  EXPECT_EQ(Run({"adapters", "delete", "adapters/pirate", "--allow-missing"}).code, kOk);
}

v1::AdapterSettings Labelled(const std::string& key, const std::string& value) {
  v1::AdapterSettings settings;
  (*settings.mutable_labels())[key] = value;
  return settings;
}

TEST_F(LoractlTest, ListShowsEachTierAndPins) {
  server_.adapters.Seed("adapters/acme/pirate", {}, "c", "w");
  server_.adapters.Change("adapters/acme/pirate", [](v1::Adapter* a) {
    a->mutable_settings()->set_pinned(true);
    a->set_size_bytes(3 << 20);
    a->set_resident_bytes(2 << 20);
    a->set_state(v1::Adapter::RESIDENT);
  });
  const Outcome plain = Run({"adapters", "list"});
  EXPECT_THAT(plain.out, StartsWith("NAME         VERSION  RANK   STORED  RESIDENT  PINNED  ACTIVE "
                                    " LAST USE  STATE\n"
                                    "acme/pirate        1     0  3.0 MiB   2.0 MiB     yes       0 "
                                    " never     RESIDENT\n"));
  server_.adapters.Change("adapters/acme/pirate",
                          [](v1::Adapter* a) { a->set_staged_bytes(1 << 20); });
  EXPECT_THAT(Run({"adapters", "list"}).out, AllOf(HasSubstr("STAGED"), HasSubstr("1.0 MiB")));
}

TEST_F(LoractlTest, ListFiltersAndIsWide) {
  v1::AdapterSettings settings = Labelled("team", "sea");
  (*settings.mutable_labels())["beta"] = "";
  settings.add_aliases("corsair");
  server_.adapters.Seed("adapters/pirate", settings, "c", "w");
  server_.adapters.Seed("adapters/poet", Labelled("team", "land"), "c", "w");
  const Outcome wide = Run({"adapters", "list", "--wide", "-l", "team=sea"});
  EXPECT_THAT(wide.out,
              AllOf(HasSubstr("beta=,team=sea"), HasSubstr("corsair"), Not(HasSubstr("poet"))));
  EXPECT_THAT(Run({"adapters", "list", "-l", "team=sea", "-l", "tier=gold"}).err,
              HasSubstr("no adapters"));
  for (const char* bad : {"team", "=sea"}) {
    const Outcome r = Run({"adapters", "list", "-l", bad});
    EXPECT_EQ(r.code, kUsage);
    EXPECT_THAT(r.err, HasSubstr("KEY=VALUE"));
  }
  EXPECT_EQ(Run({"adapters", "list", "-l", "a=1", "-l", "a=2"}).code, kUsage);
}

TEST_F(LoractlTest, GetShowsSettingsAndEtag) {
  v1::AdapterSettings settings = Labelled("team", "sea");
  settings.set_description("Talks so");
  settings.set_pinned(true);
  server_.adapters.Seed("adapters/pirate", settings, "cc", "ww");
  server_.adapters.Change("adapters/pirate", [](v1::Adapter* a) {
    a->set_last_error("no room");
    a->set_origin_version(7);
  });
  const Outcome r = Run({"adapters", "get", "pirate"});
  for (const char* text : {"etag       e2\n", "labels     team=sea\n", "about      Talks so\n",
                           ", pinned\n", "weights    sha256 ww\n", "config     sha256 cc\n",
                           "last error no room\n", "version    1 (files of 7)\n"}) {
    EXPECT_THAT(r.out, HasSubstr(text));
  }
  EXPECT_THAT(Run({"adapters", "get", "pirate", "--json"}).out,
              HasSubstr(R"("labels":{"team":"sea"})"));
}

TEST_F(LoractlTest, VersionsAndRollback) {
  server_.adapters.Seed("adapters/pirate", {}, "c", "0123456789abcdef");
  server_.adapters.Seed("adapters/pirate", {}, "c", "new");
  EXPECT_THAT(Run({"adapters", "rollback", "pirate", "--version", "9"}).err,
              HasSubstr("VERSION_NOT_FOUND"));
  EXPECT_EQ(Run({"adapters", "rollback", "pirate", "--etag", "stale"}).code, kRefused);
  const Outcome rollback = Run({"adapters", "rollback", "pirate"});
  EXPECT_EQ(rollback.code, kOk) << rollback.err;
  EXPECT_THAT(rollback.out, HasSubstr("version    3 (files of 1)"));
  const std::string versions = Run({"adapters", "versions", "pirate"}).out;
  EXPECT_THAT(versions, AllOf(HasSubstr("0123456789ab  current\n"), HasSubstr("new\n")));
  EXPECT_EQ(std::count(versions.begin(), versions.end(), '\n'), 4);
  EXPECT_THAT(Run({"adapters", "versions", "pirate", "--json"}).out,
              AllOf(StartsWith("[{"), HasSubstr(R"("origin_version":1)")));
  EXPECT_EQ(Run({"adapters", "versions", "nobody"}).code, kRefused);
}

TEST_F(LoractlTest, UpdateChangesWhatIsNamedAndNothingElse) {
  v1::AdapterSettings settings = Labelled("team", "sea");
  (*settings.mutable_labels())["beta"] = "1";
  settings.set_description("Talks so");
  settings.add_aliases("corsair");
  server_.adapters.Seed("adapters/pirate", settings, "c", "w");
  const Outcome r = Run({"adapters", "update", "pirate", "-l", "tier=gold", "--remove-label",
                         "beta", "--alias", "buccaneer", "--alias", "corsair"});
  ASSERT_EQ(r.code, kOk) << r.err;
  v1::AdapterSettings now = server_.adapters.Find("adapters/pirate")->settings();
  EXPECT_EQ(now.labels_size(), 2);
  EXPECT_EQ(now.labels().at("team"), "sea");
  EXPECT_EQ(now.labels().at("tier"), "gold");
  EXPECT_EQ(now.description(), "Talks so");
  EXPECT_FALSE(now.pinned());
  EXPECT_THAT(now.aliases(), ElementsAre("corsair", "buccaneer"));

  ASSERT_EQ(Run({"adapters", "update", "pirate", "--description", "", "--pin", "--remove-alias",
                 "corsair"})
                .code,
            kOk);
  now = server_.adapters.Find("adapters/pirate")->settings();
  EXPECT_EQ(now.description(), "");
  EXPECT_TRUE(now.pinned());
  EXPECT_THAT(now.aliases(), ElementsAre("buccaneer"));
}

TEST_F(LoractlTest, UpdateWantsSomethingPossible) {
  server_.adapters.Seed("adapters/pirate", {}, "c", "w");
  EXPECT_EQ(Run({"adapters", "update", "pirate"}).code, kUsage);
  EXPECT_EQ(Run({"adapters", "update", "pirate", "--pin", "--unpin"}).code, kUsage);
  EXPECT_EQ(Run({"adapters", "update", "pirate", "-l", "a=1", "--remove-label", "a"}).code, kUsage);
  EXPECT_EQ(Run({"adapters", "update", "nobody", "--pin"}).code, kRefused);
  EXPECT_THAT(server_.adapters.changes(), ElementsAre());
}

TEST_F(LoractlTest, UpdateKeepsWhatOthersChangeMeanwhile) {
  server_.adapters.Seed("adapters/pirate", {}, "c", "w");
  int others = 0;
  server_.adapters.before_change = [&](const std::string&) {
    if (++others > 2) return;
    server_.adapters.Change("adapters/pirate", [&](v1::Adapter* a) {
      (*a->mutable_settings()->mutable_labels())["theirs"] = std::to_string(others);
    });
  };
  ASSERT_EQ(Run({"adapters", "update", "pirate", "-l", "mine=1"}).code, kOk);
  const auto labels = server_.adapters.Find("adapters/pirate")->settings().labels();
  EXPECT_EQ(labels.at("mine"), "1");
  EXPECT_EQ(labels.at("theirs"), "2");

  others = -1000;  // it never rests
  const Outcome r = Run({"adapters", "update", "pirate", "-l", "mine=2"});
  EXPECT_EQ(r.code, kRefused);
  EXPECT_THAT(r.err, HasSubstr("ETAG_MISMATCH"));
}

TEST_F(LoractlTest, PinAndUnpin) {
  server_.adapters.Seed("adapters/a", {}, "c", "w");
  server_.adapters.Seed("adapters/b", Labelled("team", "sea"), "c", "w");
  ASSERT_EQ(Run({"adapters", "pin", "a", "b"}).code, kOk);
  EXPECT_TRUE(server_.adapters.Find("adapters/a")->settings().pinned());
  EXPECT_TRUE(server_.adapters.Find("adapters/b")->settings().pinned());
  ASSERT_EQ(Run({"adapters", "unpin", "b"}).code, kOk);
  EXPECT_FALSE(server_.adapters.Find("adapters/b")->settings().pinned());
  EXPECT_EQ(server_.adapters.Find("adapters/b")->settings().labels_size(), 1);
}

TEST_F(LoractlTest, UploadSendsSettingsOnlyIfGiven) {
  const ScratchDirectory files;
  files.WriteAdapter("pirate", "w");
  const std::string directory = (files.path() / "pirate").string();
  ASSERT_EQ(Run({"adapters", "upload", directory}).code, kOk);
  EXPECT_FALSE(server_.adapters.header.has_settings());
  files.WriteAdapter("pirate", "other");
  EXPECT_EQ(Run({"adapters", "upload", directory, "--replace", "--etag", "stale"}).code, kRefused);
  const Outcome r =
      Run({"adapters", "upload", directory, "--replace", "--etag", "e1", "-l", "team=sea",
           "--description", "Talks so", "--alias", "corsair", "--pin", "-l", "sum=1+1=2"});
  ASSERT_EQ(r.code, kOk) << r.err;
  const v1::AdapterSettings now = server_.adapters.Find("adapters/pirate")->settings();
  EXPECT_EQ(now.labels().at("team"), "sea");
  EXPECT_EQ(now.labels().at("sum"), "1+1=2");
  EXPECT_EQ(now.description(), "Talks so");
  EXPECT_THAT(now.aliases(), ElementsAre("corsair"));
  EXPECT_TRUE(now.pinned());
  EXPECT_EQ(Run({"adapters", "upload", directory, "-l", "team"}).code, kUsage);
  EXPECT_EQ(Run({"adapters", "upload", directory, directory, "--etag", "e1"}).code, kUsage);
}

TEST_F(LoractlTest, CreateTakesSettingsToo) {
  ASSERT_EQ(Run({"adapters", "create", "pirate", "/srv/pirate", "--pin"}).code, kOk);
  EXPECT_TRUE(server_.adapters.Find("adapters/pirate")->settings().pinned());
}

TEST_F(LoractlTest, DeleteGuardsWithTheEtag) {
  server_.adapters.Seed("adapters/pirate", {}, "c", "w");
  EXPECT_EQ(Run({"adapters", "delete", "pirate", "--etag", "stale"}).code, kRefused);
  EXPECT_EQ(Run({"adapters", "delete", "pirate", "poet", "--etag", "e1"}).code, kUsage);
  EXPECT_EQ(Run({"adapters", "delete", "pirate", "--etag", "e1"}).code, kOk);
}

TEST_F(LoractlTest, WatchPrintsALineAnEvent) {
  v1::WatchAdaptersResponse initial;
  initial.set_type(v1::WatchAdaptersResponse::INITIAL);
  initial.mutable_adapter()->set_name("adapters/acme/pirate");
  initial.mutable_adapter()->set_version(3);
  initial.mutable_adapter()->set_state(v1::Adapter::STORED);
  *initial.mutable_adapter()->mutable_settings() = Labelled("team", "sea");
  v1::WatchAdaptersResponse synced;
  synced.set_type(v1::WatchAdaptersResponse::SYNCED);
  v1::WatchAdaptersResponse changed = initial;
  changed.set_type(v1::WatchAdaptersResponse::CHANGED);
  changed.mutable_adapter()->mutable_settings()->set_pinned(true);
  v1::WatchAdaptersResponse deleted;
  deleted.set_type(v1::WatchAdaptersResponse::DELETED);
  deleted.mutable_adapter()->set_name("adapters/acme/pirate");
  server_.adapters.events = {initial, synced, changed, deleted};
  server_.adapters.watch_end = grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");

  const Outcome r = Run({"adapters", "watch", "-l", "team=sea"});
  EXPECT_EQ(r.code, kUnavailable);
  EXPECT_EQ(r.out,
            "INITIAL  acme/pirate version 3 STORED team=sea\n"
            "SYNCED   what follows happens now\n"
            "CHANGED  acme/pirate version 3 STORED pinned team=sea\n"
            "DELETED  acme/pirate\n");
  EXPECT_EQ(server_.adapters.watched.labels().at("team"), "sea");
  const Outcome json = Run({"adapters", "watch", "--json"});
  EXPECT_THAT(json.out,
              StartsWith(R"({"type":"INITIAL","adapter":{"name":"adapters/acme/pirate")"));
  EXPECT_EQ(std::count(json.out.begin(), json.out.end(), '\n'), 4);

  server_.adapters.watch_end = grpc::Status::OK;  // it would go on for ever
  const Outcome two = Run({"adapters", "watch", "--count", "2"});
  EXPECT_EQ(two.code, kOk) << two.err;
  EXPECT_EQ(std::count(two.out.begin(), two.out.end(), '\n'), 2);
}

}  // namespace
}  // namespace lorad::loractl
