// What Open makes of a directory in which somebody or a crash left other things than it should.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <functional>
#include <utility>
#include <vector>

#include "memory/adapter_store.h"
#include "memory/base/error_detail.h"
#include "tests/unit/memory/store_fixture.h"

namespace lorad {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::string Reason(const absl::Status& status) { return GetErrorDetail(status).reason; }

class StoreRecoveryTest : public StoreTest {
 protected:
  // Stores "good" (seed 1) and "victim" (seed 2), and closes.
  StoreRecoveryTest() {
    Open();
    Put(store_.get(), "good", 1).value();
    Put(store_.get(), "victim", 2).value();
    store_.reset();
  }
  // After Open: "good" is there, "victim" is in quarantine, its name can be used again, and its
  // number is not.
  void ExpectVictimQuarantined() {
    AdapterStore& store = Open();
    EXPECT_EQ(SeedOf(store, "good"), 1);
    EXPECT_FALSE(Latest(store, "victim").ok());
    EXPECT_THAT(store.recovery().quarantined, ElementsAre(HasSubstr("quarantine/victim")));
    EXPECT_THAT(NamesIn(root_ / "quarantine"), SizeIs(1));
    EXPECT_THAT(Open().recovery().quarantined, IsEmpty());  // once is enough
    const absl::StatusOr<StoredVersion> again = Put(store_.get(), "victim", 7);
    ASSERT_EQ(again.status(), absl::OkStatus());
    EXPECT_GT(again->version, 1);
    EXPECT_EQ(SeedOf(Open(), "victim"), 7);
  }

  const fs::path adapters_ = root_ / "adapters";
  const fs::path victim_ = root_ / "adapters/victim/1";
};

TEST_F(StoreRecoveryTest, CleanStoreNeedsNoRepair) {
  AdapterStore& store = Open();
  EXPECT_THAT(store.List(), SizeIs(2));
  EXPECT_EQ(store.recovery().unfinished, 0);
  EXPECT_EQ(store.recovery().superseded, 0);
  EXPECT_THAT(store.recovery().quarantined, IsEmpty());
}

TEST_F(StoreRecoveryTest, TwoCannotHaveItOpen) {
  Open();
  for (const absl::Status& status :
       {AdapterStore::Open(root_, TestOptions()).status(),
        AdapterStore::Open(root_ / "." / "", TestOptions()).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(Reason(status), "STORE_LOCKED");
  }
  EXPECT_EQ(InChild([&] {
              return Reason(AdapterStore::Open(root_, TestOptions()).status()) == "STORE_LOCKED";
            }),
            1);
  EXPECT_EQ(SeedOf(*store_, "good"), 1);
  EXPECT_EQ(OpenError(), absl::OkStatus());  // after closing
}

TEST_F(StoreRecoveryTest, StagingAndTrashAreEmptied) {
  fs::create_directories(root_ / "staging/17/deep/er");
  WriteFile(root_ / "staging/17/adapter_model.safetensors", "half");
  WriteFile(root_ / "staging/18", "4");  // half of a removed_through
  fs::create_symlink(victim_, root_ / "staging/link");
  fs::create_directories(root_ / "trash/3");
  AdapterStore& store = Open();
  EXPECT_EQ(store.recovery().unfinished, 1);
  EXPECT_THAT(NamesIn(root_ / "staging"), IsEmpty());
  EXPECT_THAT(NamesIn(root_ / "trash"), IsEmpty());
  EXPECT_EQ(SeedOf(store, "victim"), 2);  // not through the link
}

TEST_F(StoreRecoveryTest, AVersionWithoutAManifestWasNeverFinished) {
  fs::create_directory(adapters_ / "victim/5");
  WriteFile(adapters_ / "victim/5/adapter_model.safetensors", "half");
  fs::create_directories(adapters_ / "fresh/1");
  AdapterStore& store = Open();
  EXPECT_EQ(store.recovery().unfinished, 2);
  EXPECT_EQ(SeedOf(store, "victim"), 2);
  EXPECT_FALSE(Latest(store, "fresh").ok());
  EXPECT_FALSE(fs::exists(adapters_ / "victim/5"));
  EXPECT_FALSE(fs::exists(adapters_ / "fresh"));
  EXPECT_EQ(Put(&store, "victim", 3)->version, 6);
}

TEST_F(StoreRecoveryTest, VersionsThatWereReplacedOrDeletedAreRemoved) {
  keep_versions_ = 0;
  AdapterStore& store = Open();
  Put(&store, "victim", 3).value();
  const StoredVersion newest = Put(&store, "victim", 4).value();
  Put(&store, "gone", 5).value();
  EXPECT_EQ(store.Delete("gone"), absl::OkStatus());
  AdapterStore& again = Open();
  EXPECT_EQ(again.recovery().superseded, 3);
  EXPECT_THAT(NamesIn(adapters_ / "victim"), ElementsAre("3"));
  EXPECT_THAT(NamesIn(adapters_ / "gone"), ElementsAre("removed_through"));
  EXPECT_EQ(SeedOf(again, "victim"), 4);
  EXPECT_EQ(again.stored_bytes(), newest.bytes() + Latest(again, "good")->bytes());
}

TEST_F(StoreRecoveryTest, ADamagedManifestIsQuarantined) {
  WriteFile(victim_ / "manifest.json", "{\"id\": \"vic");
  ExpectVictimQuarantined();
}

TEST_F(StoreRecoveryTest, AManifestOfAnotherAdapterIsQuarantined) {
  fs::copy_file(adapters_ / "good/1/manifest.json", victim_ / "manifest.json",
                fs::copy_options::overwrite_existing);
  ExpectVictimQuarantined();
}

TEST_F(StoreRecoveryTest, AHugeManifestIsQuarantined) {
  WriteFile(victim_ / "manifest.json", std::string(1 << 20, '['));
  ExpectVictimQuarantined();
}

TEST_F(StoreRecoveryTest, AFileOfAnotherLengthIsQuarantined) {
  fs::resize_file(victim_ / kAdapterWeightsFile, 10);
  ExpectVictimQuarantined();
}

TEST_F(StoreRecoveryTest, AMissingFileIsQuarantined) {
  fs::remove(victim_ / kAdapterConfigFile);
  ExpectVictimQuarantined();
}

TEST_F(StoreRecoveryTest, ALinkInPlaceOfAFileIsQuarantined) {
  fs::rename(victim_ / kAdapterWeightsFile, directory_ / "elsewhere");
  fs::create_symlink(directory_ / "elsewhere", victim_ / kAdapterWeightsFile);
  ExpectVictimQuarantined();
}

TEST_F(StoreRecoveryTest, AFifoInPlaceOfAFileIsQuarantined) {
  fs::remove(victim_ / kAdapterWeightsFile);
  ASSERT_EQ(::mkfifo((victim_ / kAdapterWeightsFile).c_str(), 0600), 0);
  ExpectVictimQuarantined();
}

TEST_F(StoreRecoveryTest, AFifoInPlaceOfAManifestIsQuarantined) {
  fs::remove(victim_ / "manifest.json");
  ASSERT_EQ(::mkfifo((victim_ / "manifest.json").c_str(), 0600), 0);
  ExpectVictimQuarantined();  // without waiting for its writer
}

TEST_F(StoreRecoveryTest, ALinkInPlaceOfAVersionIsQuarantined) {
  fs::rename(victim_, directory_ / "elsewhere");
  fs::create_directory_symlink(directory_ / "elsewhere", victim_);
  AdapterStore& store = Open();
  EXPECT_FALSE(Latest(store, "victim").ok());
  EXPECT_THAT(store.recovery().quarantined, ElementsAre(HasSubstr("victim.unknown")));
  EXPECT_TRUE(fs::exists(directory_ / "elsewhere/manifest.json"));
}

TEST_F(StoreRecoveryTest, ADamagedVersionDoesNotBringTheOneBeforeBack) {
  Open();
  const fs::path second = store_->PathOf(Put(store_.get(), "victim", 3).value());
  store_.reset();
  WriteFile(second / "manifest.json", "");
  AdapterStore& store = Open();
  EXPECT_FALSE(Latest(store, "victim").ok());
  EXPECT_THAT(NamesIn(root_ / "quarantine"), ElementsAre("victim.1", "victim.2"));
  EXPECT_FALSE(Latest(Open(), "victim").ok());
  EXPECT_EQ(Put(store_.get(), "victim", 4)->version, 3);
}

TEST_F(StoreRecoveryTest, ADamagedRemovedThroughQuarantinesTheAdapter) {
  for (const char* text : {"", "x", "-1", "999999999999999999999", "1 2"}) {
    WriteFile(adapters_ / "victim/removed_through", text);
    AdapterStore& store = Open();
    EXPECT_FALSE(Latest(store, "victim").ok());
    EXPECT_THAT(store.recovery().quarantined, ElementsAre(HasSubstr("quarantine/victim")));
    EXPECT_TRUE(Put(&store, "victim", 2).ok());
    store_.reset();
  }
}

TEST_F(StoreRecoveryTest, ADamagedKeptVersionGoesAloneAndTheOneBeforeItIsKept) {
  Open();
  for (int seed = 3; seed <= 5; ++seed) Put(store_.get(), "victim", seed).value();
  EXPECT_EQ(Describe(*store_, "victim"), Describe(5, {4, 3}, "", 4));
  store_.reset();
  WriteFile(adapters_ / "victim/3/manifest.json", "{}");
  AdapterStore& store = Open();
  EXPECT_EQ(Describe(store, "victim"), Describe(5, {3, 2}, "", 4));
  EXPECT_THAT(store.recovery().quarantined, ElementsAre(HasSubstr("quarantine/victim.3")));
  ExpectBooksMatchDisk(store);
  EXPECT_EQ(Describe(Open(), "victim"), Describe(5, {3, 2}, "", 4));
  EXPECT_THAT(store_->recovery().quarantined, IsEmpty());
}

// What a manifest or the settings may be instead of what they should.
std::vector<std::string> Garbage() {
  return {"",
          "{",
          "null",
          "[]",
          "\"text\"",
          std::string("\0\0\0", 3),
          "\xff\xfe",
          std::string(1 << 20, '['),
          std::string(300'000, '['),
          R"({"version": 1, "revision": -5, "settings": "x"})",
          R"({"version": -1, "revision": 5, "settings": "x"})",
          R"({"version": 1, "revision": 1e300, "settings": "x"})",
          R"({"version": 1, "revision": 99999999999999999999, "settings": "x"})",
          R"({"version": 1, "revision": 1000000000000001, "settings": "x"})",
          R"({"version": 1, "revision": 5, "settings": {"x": 1}})",
          R"({"version": 1, "revision": "5", "settings": "x"})",
          R"({"version": true, "revision": 5, "settings": "x"})",
          R"({"version": 1, "revision": 5})",
          R"({"version": 2, "revision": 5, "settings": "of a version that is not there"})",
          "{\"version\": 1, \"revision\": 5, \"settings\": \"\xc3\"}",
          fmt::format(R"({{"version": 1, "revision": 5, "settings": "{}"}})",
                      std::string(kMaxSettingsBytes + 1, 'x'))};
}

TEST_F(StoreRecoveryTest, DamagedSettingsAreQuarantinedAndTheAdapterStays) {
  CommitOptions options = Replacing();
  options.settings = "of the manifest";
  Put(&Open(), "adapter", 7, options).value();
  store_.reset();
  const fs::path settings = adapters_ / "adapter/settings";
  std::vector<std::function<void()>> plants;
  for (const std::string& text : Garbage())
    plants.push_back([&, text] { WriteFile(settings, text); });
  plants.push_back([&] { fs::create_symlink("/etc/passwd", settings); });
  plants.push_back([&] { fs::create_symlink(settings, settings); });
  plants.push_back([&] { fs::create_directories(settings / "deep"); });
  plants.push_back([&] { ASSERT_EQ(::mkfifo(settings.c_str(), 0600), 0); });
  for (size_t i = 0; i < plants.size(); ++i) {
    SCOPED_TRACE(i);
    plants[i]();
    AdapterStore& store = Open();
    EXPECT_THAT(store.recovery().quarantined, ElementsAre(HasSubstr("adapter.settings")));
    EXPECT_EQ(Describe(store, "adapter"), Describe(7, {}, "of the manifest", 1));
    EXPECT_FALSE(fs::exists(fs::symlink_status(settings)));
    EXPECT_THAT(Open().recovery().quarantined, IsEmpty());
    store_.reset();
  }
  EXPECT_EQ(Open().UpdateSettings("adapter", "new")->revision, 2);
  EXPECT_EQ(Describe(Open(), "adapter"), Describe(7, {}, "new", 2));
}

TEST_F(StoreRecoveryTest, HostileManifestsAreQuarantined) {
  const std::string good = ReadFile(victim_ / "manifest.json");
  std::vector<std::string> texts = Garbage();
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{
           {"revision", "-1"},
           {"revision", "0"},
           {"revision", "\"1\""},
           {"version", "-1"},
           {"origin_version", "1"},
           {"bytes", "-1"},
           {"bytes", "9223372036854775807"},
           {"sha256", "\"../../victim/1/manifest.json\""},
           {"facts", "1"},
           {"settings", "[]"}}) {
    const size_t at = good.find('"' + name + "\": ") + name.size() + 4;
    std::string text = good;
    texts.push_back(text.replace(at, text.find_first_of(",\n", at) - at, value));
  }
  for (const std::string& text : texts) {
    SCOPED_TRACE(text.substr(0, 400));
    const int64_t version = Put(&Open(), "hostile", 3)->version;
    store_.reset();
    const fs::path path = adapters_ / "hostile" / std::to_string(version) / "manifest.json";
    WriteFile(path, text);
    AdapterStore& store = Open();
    EXPECT_THAT(store.recovery().quarantined, ElementsAre(HasSubstr("quarantine/hostile")));
    EXPECT_FALSE(Latest(store, "hostile").ok());
    EXPECT_EQ(SeedOf(store, "good"), 1);
    ExpectBooksMatchDisk(store);
  }
}

TEST_F(StoreRecoveryTest, NumbersThatSomebodyPlantedNearTheEndLoseNothing) {
  Open();
  store_.reset();
  fs::rename(victim_, adapters_ / "victim/1000000000000000");
  std::string manifest = ReadFile(adapters_ / "victim/1000000000000000/manifest.json");
  manifest.replace(manifest.find("\"version\": 1"), 12, "\"version\": 1000000000000000");
  WriteFile(adapters_ / "victim/1000000000000000/manifest.json", manifest);
  WriteFile(adapters_ / "good/settings",
            R"({"version": 1, "revision": 1000000000000000, "settings": "last"})");
  AdapterStore& store = Open();
  EXPECT_EQ(SeedOf(store, "victim"), 2);
  // What would not be read again is refused.
  for (const absl::Status& status :
       {Put(&store, "victim", 3).status(), store.UpdateSettings("good", "x").status(),
        Put(&store, "good", 3).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(Reason(status), "NUMBERS_EXHAUSTED");
  }
  EXPECT_EQ(Describe(Open(), "good"), Describe(1, {}, "last", 1'000'000'000'000'000));
  EXPECT_EQ(SeedOf(*store_, "victim"), 2);
  ExpectBooksMatchDisk(*store_);
  EXPECT_EQ(store_->RemoveAll("good"), absl::OkStatus());
  EXPECT_EQ(Put(store_.get(), "good", 3)->version, 2);
}

TEST_F(StoreRecoveryTest, UnknownThingsAreQuarantinedAndAllElseIsServed) {
  fs::create_directory(adapters_ / "Not An Id");
  WriteFile(adapters_ / "file", "x");
  fs::create_directory_symlink("/", adapters_ / "link");
  ASSERT_EQ(::mkfifo((adapters_ / "fifo").c_str(), 0600), 0);
  WriteFile(adapters_ / "good/notes.txt", "x");
  fs::create_directory(adapters_ / "good/01");
  fs::create_directory(adapters_ / "good/99999999999999999");
  AdapterStore& store = Open();
  EXPECT_THAT(store.recovery().quarantined, SizeIs(7));
  EXPECT_THAT(NamesIn(root_ / "quarantine"), SizeIs(7));
  EXPECT_THAT(NamesIn(adapters_), ElementsAre("good", "victim"));
  EXPECT_EQ(SeedOf(store, "good"), 1);
  EXPECT_EQ(Put(&store, "good", 2)->version, 2);
}

TEST_F(StoreRecoveryTest, LinksInPlaceOfItsOwnDirectoriesAreRefused) {
  for (const char* name : {"adapters", "blobs", "staging", "trash", "quarantine"}) {
    fs::rename(root_ / name, directory_ / "elsewhere");
    WriteFile(directory_ / "elsewhere/precious", "x");
    fs::create_directory_symlink(directory_ / "elsewhere", root_ / name);
    EXPECT_EQ(OpenError().code(), absl::StatusCode::kDataLoss) << name;
    EXPECT_TRUE(fs::exists(directory_ / "elsewhere/precious"));
    fs::remove(directory_ / "elsewhere/precious");
    fs::remove(root_ / name);
    fs::rename(directory_ / "elsewhere", root_ / name);
  }
  EXPECT_EQ(OpenError(), absl::OkStatus());
}

TEST_F(StoreTest, ADirectoryOfOtherThingsIsRefusedAndLeftAlone) {
  fs::create_directories(root_ / "staging/holiday");
  const absl::Status status = OpenError();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Reason(status), "NOT_A_STORE");
  EXPECT_THAT(NamesIn(root_), ElementsAre("staging"));
  EXPECT_TRUE(fs::exists(root_ / "staging/holiday"));
  fs::remove_all(root_);
  WriteFile(root_, "a file");
  EXPECT_EQ(OpenError().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(AdapterStore::Open("", TestOptions()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(StoreTest, MissingParentsAreMadeAndAHalfMadeStoreIsFinished) {
  root_ = directory_ / "a/b/store";
  Open();
  store_.reset();
  fs::remove_all(root_);
  fs::create_directory(root_);
  WriteFile(root_ / "lock", "");
  WriteFile(root_ / "format.new", "");
  EXPECT_THAT(Open().List(), IsEmpty());
  EXPECT_EQ(ReadFile(root_ / "format"), "2\n");
}

}  // namespace
}  // namespace lorad
