#include "memory/adapter_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <set>
#include <thread>

#include "memory/base/error_detail.h"
#include "memory/sha256.h"
#include "tests/unit/memory/store_fixture.h"

namespace lorad {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Reason(const absl::Status& status) { return GetErrorDetail(status).reason; }
std::string Field(const absl::Status& status) { return GetErrorDetail(status).field; }

std::string Hash(std::string_view bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.Finish();
}

using Files = std::array<DeclaredFile, 2>;
Files Declare(int64_t config_bytes, int64_t weights_bytes, std::string sha256 = "") {
  return {{{std::string(kAdapterConfigFile), config_bytes, ""},
           {std::string(kAdapterWeightsFile), weights_bytes, std::move(sha256)}}};
}

TEST_F(StoreTest, ACommittedAdapterIsThereWithAllItsFacts) {
  AdapterStore& store = Open();
  EXPECT_THAT(store.List(), IsEmpty());
  const auto before = std::chrono::system_clock::now();
  const absl::StatusOr<StoredVersion> put = Put(&store, "acme-7", 1, IfExists::kRefuse);
  ASSERT_EQ(put.status(), absl::OkStatus());
  EXPECT_EQ(put->id, "acme-7");
  EXPECT_EQ(put->version, 1);
  EXPECT_EQ(store.PathOf(*put), root_ / "adapters/acme-7/1");
  EXPECT_EQ(put->config.sha256, Hash(ConfigOf(1)));
  EXPECT_EQ(put->weights.sha256, Hash(WeightsOf(1)));
  EXPECT_EQ(put->bytes(), static_cast<int64_t>(ConfigOf(1).size() + WeightsOf(1).size()));
  EXPECT_GE(put->create_time, before);
  EXPECT_EQ(SeedOf(store, *put), 1);
  EXPECT_EQ(store.stored_bytes(), put->bytes());
  EXPECT_THAT(NamesIn(root_ / "staging"), IsEmpty());

  AdapterStore& again = Open();
  const absl::StatusOr<StoredVersion> found = Latest(again, "acme-7");
  ASSERT_EQ(found.status(), absl::OkStatus());
  EXPECT_EQ(found->version, 1);
  EXPECT_EQ(found->weights.sha256, put->weights.sha256);
  EXPECT_EQ(found->create_time, put->create_time);
  EXPECT_EQ(again.stored_bytes(), put->bytes());
}

TEST_F(StoreTest, OthersCannotEnterIt) {
  Open();
  struct stat info;
  ASSERT_EQ(::stat(root_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST_F(StoreTest, AnExistingAdapterIsReplacedOnlyIfThatWasAsked) {
  keep_versions_ = 0;
  AdapterStore& store = Open();
  const StoredVersion first = Put(&store, "a", 1).value();
  const absl::Status refused = Put(&store, "a", 2, IfExists::kRefuse).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Reason(refused), "ADAPTER_EXISTS");
  EXPECT_EQ(GetErrorDetail(refused).resource_name, "adapters/a");
  EXPECT_EQ(SeedOf(store, "a"), 1);
  EXPECT_THAT(NamesIn(root_ / "staging"), IsEmpty());

  const StoredVersion second = Put(&store, "a", 2, IfExists::kReplace).value();
  EXPECT_EQ(second.version, 2);
  EXPECT_EQ(SeedOf(store, "a"), 2);
  EXPECT_EQ(SeedOf(store, first), 1);  // whoever runs on it can still load it
  EXPECT_EQ(store.stored_bytes(), first.bytes() + second.bytes());

  EXPECT_EQ(store.Remove("a", 1), absl::OkStatus());
  EXPECT_FALSE(fs::exists(store.PathOf(first)));
  EXPECT_EQ(store.stored_bytes(), second.bytes());
  EXPECT_THAT(NamesIn(root_ / "trash"), IsEmpty());
  EXPECT_EQ(Reason(store.Remove("a", 1)), "VERSION_NOT_FOUND");
}

TEST_F(StoreTest, DeleteHidesAnAdapterAndRemoveTakesItsFiles) {
  AdapterStore& store = Open();
  const StoredVersion version = Put(&store, "a", 1).value();
  EXPECT_EQ(store.Delete("a"), absl::OkStatus());
  EXPECT_EQ(Latest(store, "a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(store.List(), IsEmpty());
  EXPECT_EQ(SeedOf(store, version), 1);
  EXPECT_EQ(Reason(store.Delete("a")), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(store.Remove("a", 1), absl::OkStatus());
  EXPECT_FALSE(fs::exists(store.PathOf(version)));
  EXPECT_EQ(store.stored_bytes(), 0);
  EXPECT_EQ(Latest(Open(), "a").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(StoreTest, RemoveTakesNoVersionThatIsCurrentOrKept) {
  AdapterStore& store = Open();
  for (int seed = 1; seed <= 4; ++seed) Put(&store, "a", seed).value();
  EXPECT_THAT(store.Lingering("a"), ElementsAre(1));
  for (const int64_t version : {2, 3, 4}) {
    const absl::Status status = store.Remove("a", version);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(Reason(status), "VERSION_KEPT");
    EXPECT_EQ(GetErrorDetail(status).resource_name, "adapters/a");
  }
  EXPECT_EQ(store.Remove("a", 1), absl::OkStatus());
  EXPECT_THAT(store.Lingering("a"), IsEmpty());
  EXPECT_THAT(NamesIn(root_ / "adapters/a"), ElementsAre("2", "3", "4"));
  EXPECT_EQ(SeedOf(Open(), "a"), 4);
}

TEST_F(StoreTest, RemoveAllTakesEveryVersion) {
  AdapterStore& store = Open();
  for (int seed = 1; seed <= 3; ++seed) Put(&store, "a", seed).value();
  Put(&store, "b", 9).value();
  EXPECT_EQ(store.RemoveAll("a"), absl::OkStatus());
  EXPECT_THAT(NamesIn(root_ / "adapters/a"), ElementsAre("removed_through"));
  EXPECT_EQ(Reason(store.RemoveAll("a")), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(SeedOf(store, "b"), 9);
}

TEST_F(StoreTest, VersionNumbersAreNeverUsedAgain) {
  EXPECT_EQ(Put(&Open(), "a", 1)->version, 1);
  EXPECT_EQ(Put(store_.get(), "a", 2)->version, 2);
  EXPECT_EQ(store_->RemoveAll("a"), absl::OkStatus());
  EXPECT_EQ(Put(store_.get(), "a", 3)->version, 3);
  EXPECT_EQ(store_->RemoveAll("a"), absl::OkStatus());
  EXPECT_EQ(Put(&Open(), "a", 4, IfExists::kRefuse)->version, 4);
  EXPECT_EQ(Put(&Open(), "a", 5)->version, 5);
  EXPECT_EQ(Put(store_.get(), "other", 1)->version, 1);
}

TEST_F(StoreTest, ListIsSortedAndHasCurrentVersionsOnly) {
  AdapterStore& store = Open();
  for (const char* id : {"b", "a.1", "a", "c"}) Put(&store, id, 1).value();
  Put(&store, "a", 2).value();
  EXPECT_EQ(store.Delete("c"), absl::OkStatus());
  std::vector<std::string> listed;
  for (const StoredAdapter& adapter : store.List()) {
    listed.push_back(adapter.id() + "@" + std::to_string(adapter.current.version));
  }
  EXPECT_THAT(listed, ElementsAre("a@2", "a.1@1", "b@1"));
}

TEST_F(StoreTest, AnIdThatIsNoIdIsRefusedAndNotFound) {
  AdapterStore& store = Open();
  for (const char* id : {"", "../x", "A", "a/b/c", "/a", "a/", "a/.."}) {
    const absl::Status status = Put(&store, id, 1).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(Field(status), "adapter_id");
    for (const absl::Status& other :
         {Latest(store, id).status(), store.Delete(id), store.Remove(id, 1), store.RemoveAll(id),
          store.Quarantine(id, 1)}) {
      EXPECT_EQ(other.code(), absl::StatusCode::kNotFound);
      EXPECT_EQ(GetErrorDetail(other).resource_name, "");
    }
  }
  EXPECT_THAT(NamesIn(directory_), ElementsAre("store"));
  EXPECT_THAT(NamesIn(root_ / "adapters"), IsEmpty());
}

TEST_F(StoreTest, TheStagedFilesAreThereToBeCheckedAndGoIfNotCommitted) {
  AdapterStore& store = Open();
  fs::path path;
  {
    StagedAdapter staged = Stage(&store, 5).value();
    path = staged.path();
    EXPECT_EQ(ReadFile(path / kAdapterWeightsFile), WeightsOf(5));
    EXPECT_EQ(ReadFile(path / kAdapterConfigFile), ConfigOf(5));
    StagedAdapter moved = std::move(staged);
    EXPECT_TRUE(fs::exists(moved.path()));
    moved = Stage(&store, 6).value();  // drops the first
    EXPECT_FALSE(fs::exists(path));
    path = moved.path();
    EXPECT_EQ(ReadFile(path / kAdapterWeightsFile), WeightsOf(6));
  }
  EXPECT_FALSE(fs::exists(path));
  EXPECT_THAT(store.List(), IsEmpty());
}

TEST_F(StoreTest, WritesMustFitTheDeclaration) {
  AdapterStore& store = Open();
  struct Case {
    int file;
    int64_t offset;
    std::string_view bytes;
    const char* field;
  };
  for (const Case& c : {Case{-1, 0, "a", "file_index"}, Case{2, 0, "a", "file_index"},
                        Case{0, 1, "a", "offset"}, Case{0, -1, "a", "offset"},
                        Case{1, int64_t{1} << 62, "a", "offset"}, Case{0, 0, "12345", "data"}}) {
    StagedAdapter staged = store.Begin(Declare(4, 6)).value();
    const absl::Status status = staged.Write(c.file, c.offset, c.bytes);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(Field(status), c.field);
    EXPECT_EQ(staged.Write(0, 0, "1234"), status);  // it stays failed
    EXPECT_EQ(staged.CheckComplete(), status);
    EXPECT_EQ(store.Commit(std::move(staged), "a", Replacing()).status(), status);
  }
  StagedAdapter staged = store.Begin(Declare(4, 6)).value();
  EXPECT_EQ(staged.Write(0, 0, "12"), absl::OkStatus());
  EXPECT_EQ(staged.Write(1, 0, "123456"), absl::OkStatus());  // the files may be interleaved
  EXPECT_EQ(staged.Write(0, 2, ""), absl::OkStatus());
  EXPECT_EQ(staged.Write(0, 2, "34"), absl::OkStatus());
  EXPECT_EQ(staged.CheckComplete(), absl::OkStatus());
  EXPECT_EQ(Field(staged.Write(0, 4, "5")), "data");
  EXPECT_THAT(store.List(), IsEmpty());
}

TEST_F(StoreTest, AShortUploadIsRefusedAtEveryLength) {
  AdapterStore& store = Open();
  for (int length = 0; length < 10; ++length) {
    StagedAdapter staged = store.Begin(Declare(4, 6)).value();
    const std::string bytes = std::string("1234abcdef").substr(0, static_cast<size_t>(length));
    ASSERT_EQ(staged.Write(0, 0, bytes.substr(0, 4)), absl::OkStatus());
    if (length > 4) {
      ASSERT_EQ(staged.Write(1, 0, bytes.substr(4)), absl::OkStatus());
    }
    EXPECT_EQ(Reason(staged.CheckComplete()), "UPLOAD_INCOMPLETE");
    const absl::Status status = store.Commit(std::move(staged), "a", Replacing()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_THAT(store.List(), IsEmpty());
  EXPECT_THAT(NamesIn(root_ / "staging"), IsEmpty());
}

TEST_F(StoreTest, EveryFlippedBitIsCaughtByADeclaredHash) {
  AdapterStore& store = Open();
  const std::string good = "twenty bytes of them";
  for (size_t bit = 0; bit <= 8 * good.size(); ++bit) {
    std::string sent = good;
    if (bit < 8 * good.size()) sent[bit / 8] = static_cast<char>(sent[bit / 8] ^ (1 << bit % 8));
    StagedAdapter staged = store.Begin(Declare(1, 20, Hash(good))).value();
    const absl::Status status = staged.Write(1, 0, sent);
    if (bit == 8 * good.size()) {
      EXPECT_EQ(status, absl::OkStatus());
    } else {
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
      EXPECT_EQ(Reason(status), "CHECKSUM_MISMATCH");
    }
  }
}

TEST_F(StoreTest, DeclarationsAreCheckedBeforeAnyDiskIsTaken) {
  AdapterStore::Options options = TestOptions();
  options.max_config_bytes = 10;
  options.max_weights_bytes = 100;
  store_ = AdapterStore::Open(root_, std::move(options)).value();
  const auto refuse = [&](std::vector<DeclaredFile> files) {
    const absl::Status status = store_->Begin(files).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(NamesIn(root_ / "staging"), IsEmpty());
    return Field(status);
  };
  const std::string config(kAdapterConfigFile), weights(kAdapterWeightsFile);
  EXPECT_EQ(refuse({}), "files");
  EXPECT_EQ(refuse({{weights, 1, ""}}), "files");
  EXPECT_EQ(refuse({{config, 1, ""}, {config, 1, ""}}), "files[1].name");
  EXPECT_EQ(refuse({{config, 1, ""}, {"../x", 1, ""}}), "files[1].name");
  EXPECT_EQ(refuse({{config, 1, ""}, {weights, 1, ""}, {weights, 1, ""}}), "files");
  EXPECT_EQ(refuse({{config, 11, ""}, {weights, 1, ""}}), "files[0].size_bytes");
  EXPECT_EQ(refuse({{weights, 101, ""}, {config, 1, ""}}), "files[0].size_bytes");
  EXPECT_EQ(refuse({{config, 0, ""}, {weights, 1, ""}}), "files[0].size_bytes");
  EXPECT_EQ(refuse({{config, 1, ""}, {weights, -1, ""}}), "files[1].size_bytes");
  EXPECT_EQ(refuse({{config, 1, ""}, {weights, 1, "xyz"}}), "files[1].sha256");
  EXPECT_EQ(Reason(store_->Begin(Declare(11, 1)).status()), "FILE_TOO_LARGE");
  EXPECT_TRUE(store_->Begin(Declare(10, 100)).ok());
}

TEST_F(StoreTest, TheStoresSizeIsLimitedWithStagedFilesCounted) {
  AdapterStore::Options options = TestOptions();
  options.max_store_bytes = 100;
  store_ = AdapterStore::Open(root_, std::move(options)).value();
  {
    StagedAdapter first = store_->Begin(Declare(1, 59)).value();
    const absl::Status status = store_->Begin(Declare(1, 40)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(Reason(status), "STORE_FULL");
    EXPECT_TRUE(store_->Begin(Declare(1, 39)).ok());
    ASSERT_EQ(first.Write(0, 0, "x"), absl::OkStatus());
    ASSERT_EQ(first.Write(1, 0, std::string(59, 'y')), absl::OkStatus());
    ASSERT_TRUE(store_->Commit(std::move(first), "a", {}).ok());
  }
  EXPECT_EQ(Reason(store_->Begin(Declare(1, 40)).status()), "STORE_FULL");
  EXPECT_TRUE(store_->Begin(Declare(1, 39)).ok());
  EXPECT_EQ(store_->RemoveAll("a"), absl::OkStatus());
  EXPECT_TRUE(store_->Begin(Declare(1, 99)).ok());
}

TEST_F(StoreTest, FreeDiskSpaceIsCheckedWithOtherUploadsCounted) {
  const int64_t available = Disk(root_).FreeBytes(directory_).value();
  AdapterStore::Options options = TestOptions();
  options.max_weights_bytes = INT64_MAX / 4;
  options.min_free_bytes = available / 2;
  store_ = AdapterStore::Open(root_, std::move(options)).value();
  // Far enough from the limits that other users of the disk do not matter.
  absl::Status status;
  {
    const absl::StatusOr<StagedAdapter> most = store_->Begin(Declare(1, available / 3));
    EXPECT_EQ(most.status(), absl::OkStatus());
    status = store_->Begin(Declare(1, available / 3)).status();
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Reason(status), "DISK_FULL");
  EXPECT_TRUE(store_->Begin(Declare(1, available / 3)).ok());  // the first gave its room back
}

class StoreCopyTest : public StoreTest {
 protected:
  StoreCopyTest() {
    fs::create_directory(source_);
    WriteFile(source_ / kAdapterConfigFile, ConfigOf(3));
    WriteFile(source_ / kAdapterWeightsFile, WeightsOf(3));
    WriteFile(source_ / "README.md", "not copied");
  }
  // What BeginCopy says of the source as it is now.
  std::string Refused(const fs::path& path) {
    const absl::Status status = store_->BeginCopy(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_EQ(Field(status), "path");
    EXPECT_THAT(NamesIn(root_ / "staging"), IsEmpty());
    return std::string(status.message());
  }

  const fs::path source_ = directory_ / "source";
};

TEST_F(StoreCopyTest, TakesTheTwoFilesOfADirectory) {
  AdapterStore& store = Open();
  for (const fs::path& path : {source_, source_ / ""}) {
    StagedAdapter staged = store.BeginCopy(path).value();
    EXPECT_THAT(NamesIn(staged.path()), ElementsAre(kAdapterConfigFile, kAdapterWeightsFile));
    const StoredVersion version = store.Commit(std::move(staged), "a", Replacing()).value().current;
    EXPECT_EQ(SeedOf(store, version), 3);
  }
  EXPECT_EQ(ReadFile(source_ / kAdapterWeightsFile), WeightsOf(3));
}

TEST_F(StoreCopyTest, CopiesFilesLongerThanABlock) {
  AdapterStore& store = Open();
  const std::string large(3'500'000, 'w');
  WriteFile(source_ / kAdapterWeightsFile, large);
  const StagedAdapter staged = store.BeginCopy(source_).value();
  EXPECT_TRUE(ReadFile(staged.path() / kAdapterWeightsFile) == large);
}

TEST_F(StoreCopyTest, RefusesWhatIsMissingEmptyOrTooLarge) {
  Open();
  EXPECT_THAT(Refused("relative"), HasSubstr("absolute"));
  EXPECT_THAT(Refused(source_ / "nothing"), HasSubstr("does not exist"));
  EXPECT_THAT(Refused(source_ / "README.md"), HasSubstr("no directory"));
  EXPECT_THAT(Refused(source_ / ".." / "source"), HasSubstr(".."));
  WriteFile(source_ / kAdapterConfigFile, "");
  EXPECT_THAT(Refused(source_), HasSubstr("adapter_config.json is empty"));
  WriteFile(source_ / kAdapterConfigFile, std::string((1 << 20) + 1, 'x'));
  EXPECT_THAT(Refused(source_), HasSubstr("1048577 bytes"));
  fs::remove(source_ / kAdapterWeightsFile);
  EXPECT_THAT(Refused(source_), HasSubstr("has no adapter_model.safetensors"));
}

TEST_F(StoreCopyTest, FollowsNoLinkAndReadsOnlyRegularFiles) {
  Open();
  fs::create_directory_symlink(source_, directory_ / "link");
  EXPECT_THAT(Refused(directory_ / "link"), HasSubstr("symbolic link"));
  fs::create_directory_symlink(directory_, directory_ / "up");
  EXPECT_THAT(Refused(directory_ / "up" / "source"), HasSubstr("symbolic link"));

  const fs::path weights = source_ / kAdapterWeightsFile;
  fs::remove(weights);
  fs::create_symlink("/etc/passwd", weights);
  EXPECT_THAT(Refused(source_), HasSubstr("is a symbolic link"));
  fs::remove(weights);
  ASSERT_EQ(::mkfifo(weights.c_str(), 0600), 0);
  EXPECT_THAT(Refused(source_), HasSubstr("no regular file"));  // and does not wait for a writer
  fs::remove(weights);
  fs::create_directory(weights);
  EXPECT_THAT(Refused(source_), HasSubstr("no regular file"));
}

TEST_F(StoreTest, VerifyFindsEveryFlippedByteAndQuarantineTakesTheAdapterAway) {
  AdapterStore& store = Open();
  Put(&store, "other", 1).value();
  const StoredVersion version = Put(&store, "a", 2).value();
  EXPECT_EQ(store.Verify(version), absl::OkStatus());
  const std::string good = ReadFile(store.PathOf(version) / kAdapterWeightsFile);
  for (size_t i = 0; i < good.size(); i += 13) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] + 1);
    WriteFile(store.PathOf(version) / kAdapterWeightsFile, bad);
    EXPECT_EQ(store.Verify(version).code(), absl::StatusCode::kDataLoss) << i;
  }
  fs::remove(store.PathOf(version) / kAdapterConfigFile);
  const absl::Status status = store.Verify(version);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Reason(status), "ADAPTER_CORRUPT");
  EXPECT_EQ(GetErrorDetail(status).resource_name, "adapters/a");

  EXPECT_EQ(store.Quarantine("a", 2).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store.Quarantine("a", 1), absl::OkStatus());
  EXPECT_THAT(NamesIn(root_ / "quarantine"), ElementsAre("a.1"));
  EXPECT_FALSE(Latest(store, "a").ok());
  EXPECT_EQ(Put(&store, "a", 3)->version, 2);
  EXPECT_EQ(SeedOf(Open(), "a"), 3);
  EXPECT_THAT(NamesIn(root_ / "quarantine"), ElementsAre("a.1"));
}

TEST_F(StoreTest, ManyThreadsAgree) {
  AdapterStore& store = Open();
  constexpr int kThreads = 4, kPuts = 12;
  std::array<std::vector<int64_t>, kThreads> versions;
  std::array<int, kThreads> created{};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      created[t] = Put(&store, "once", t, IfExists::kRefuse).ok();
      for (int i = 0; i < kPuts; ++i) {
        const absl::StatusOr<StoredVersion> put = Put(&store, "shared", 100 * t + i);
        if (put.ok()) versions[t].push_back(put->version);
        (void)Put(&store, "own-" + std::to_string(t), i);
        if (i % 3 == 2) store.RemoveAll("shared").IgnoreError();
        (void)store.List();
        (void)Latest(store, "shared");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(created[0] + created[1] + created[2] + created[3], 1);
  std::set<int64_t> all;
  for (const auto& own : versions) {
    EXPECT_TRUE(std::is_sorted(own.begin(), own.end()));
    all.insert(own.begin(), own.end());
  }
  EXPECT_EQ(all.size(), static_cast<size_t>(kThreads * kPuts));  // no number was given twice
  EXPECT_EQ(*all.rbegin(), kThreads * kPuts);
  for (const StoredAdapter& adapter : store.List()) EXPECT_GE(SeedOf(store, adapter.current), 0);
  const size_t listed = store.List().size();
  EXPECT_EQ(Open().List().size(), listed);
}

}  // namespace
}  // namespace lorad
