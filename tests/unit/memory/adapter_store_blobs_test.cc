// Equal files are stored once.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>

#include "memory/adapter_store.h"
#include "memory/base/error_detail.h"
#include "tests/unit/memory/store_fixture.h"

namespace lorad {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

class StoreBlobsTest : public StoreTest {
 protected:
  fs::path Blob(std::string_view bytes) const { return root_ / "blobs" / HashOf(bytes); }
  static struct stat StatOf(const fs::path& path) {
    struct stat info {};
    EXPECT_EQ(::lstat(path.c_str(), &info), 0) << path;
    return info;
  }
  static uint64_t InodeOf(const fs::path& path) { return StatOf(path).st_ino; }
  // Of each version's weights, for what the tests ask most.
  fs::path Weights(std::string_view directory) const {
    return root_ / "adapters" / directory / kAdapterWeightsFile;
  }
};

TEST_F(StoreBlobsTest, TwoAdaptersOfTheSameBytesAreOneFile) {
  AdapterStore& store = Open();
  const StoredVersion first = Put(&store, "a", 1).value();
  const StoredVersion second = Put(&store, "acme/b", 1).value();
  EXPECT_THAT(NamesIn(root_ / "blobs"),
              UnorderedElementsAre(HashOf(ConfigOf(1)), HashOf(WeightsOf(1))));
  EXPECT_EQ(InodeOf(Weights("a/1")), InodeOf(Weights("acme~b/1")));
  EXPECT_EQ(InodeOf(Weights("a/1")), InodeOf(Blob(WeightsOf(1))));
  EXPECT_EQ(InodeOf(Weights("a/1")), second.weights.inode);
  EXPECT_EQ(StatOf(Weights("a/1")).st_nlink, 3u);
  EXPECT_THAT(NamesIn(root_ / "adapters/acme~b/1"), SizeIs(3));  // no name is left from linking
  EXPECT_EQ(store.stored_bytes(), first.bytes());
  EXPECT_EQ(SeedOf(store, second), 1);
  ExpectBooksMatchDisk(store);
  EXPECT_EQ(Open().stored_bytes(), first.bytes());
  ExpectBooksMatchDisk(*store_);
}

TEST_F(StoreBlobsTest, AFileStaysUntilItsLastVersionIsRemoved) {
  AdapterStore& store = Open();
  Put(&store, "a", 1).value();
  Put(&store, "b", 1).value();
  const int64_t bytes = store.stored_bytes();
  EXPECT_EQ(store.RemoveAll("a"), absl::OkStatus());
  EXPECT_EQ(SeedOf(store, "b"), 1);
  EXPECT_EQ(store.stored_bytes(), bytes);
  EXPECT_TRUE(fs::exists(Blob(WeightsOf(1))));
  EXPECT_EQ(store.RemoveAll("b"), absl::OkStatus());
  EXPECT_THAT(NamesIn(root_ / "blobs"), IsEmpty());
  EXPECT_EQ(store.stored_bytes(), 0);
  Put(&store, "c", 1).value();  // it is no memory of what there was
  EXPECT_EQ(SeedOf(Open(), "c"), 1);
}

TEST_F(StoreBlobsTest, OneAdapterMayHaveTwoEqualFiles) {
  AdapterStore& store = Open();
  const std::string bytes = "both files hold this";
  const std::vector<DeclaredFile> files = {Declared(kAdapterConfigFile, bytes),
                                           Declared(kAdapterWeightsFile, bytes)};
  StagedAdapter staged = store.Begin(files).value();
  ASSERT_TRUE(staged.Write(0, 0, bytes).ok() && staged.Write(1, 0, bytes).ok());
  const StoredVersion version = store.Commit(std::move(staged), "a", {}).value().current;
  EXPECT_EQ(version.config.inode, version.weights.inode);
  EXPECT_EQ(store.Verify(version), absl::OkStatus());
  ExpectBooksMatchDisk(store);
  EXPECT_EQ(store.RemoveAll("a"), absl::OkStatus());
  EXPECT_THAT(NamesIn(root_ / "blobs"), IsEmpty());
  EXPECT_EQ(store.stored_bytes(), 0);
}

TEST_F(StoreBlobsTest, WhereNoLinkIsPossibleEachVersionHasItsOwnFiles) {
  for (const int error : {EMLINK, EPERM, EXDEV, EOPNOTSUPP}) {
    fs::remove_all(root_);
    AdapterStore& store = Open([error](std::string_view operation, const fs::path&) {
      return operation == "link" ? error : 0;
    });
    const StoredVersion first = Put(&store, "a", 1).value();
    Put(&store, "b", 1).value();
    Put(&store, "a", 2).value();
    EXPECT_THAT(NamesIn(root_ / "blobs"), IsEmpty());
    EXPECT_NE(InodeOf(Weights("a/1")), InodeOf(Weights("b/1")));
    const StoredAdapter back = store.Rollback("a", 1).value();
    EXPECT_NE(InodeOf(Weights("a/1")), InodeOf(Weights("a/3")));
    EXPECT_EQ(SeedOf(store, back.current), 1);
    EXPECT_EQ(StatOf(Weights("a/3")).st_mode & 0777, 0600u);
    ExpectBooksMatchDisk(store);
    EXPECT_EQ(Describe(Open(), "a"), Describe(1, {2, 1}, "", 3));
    ExpectBooksMatchDisk(*store_);
  }
}

TEST_F(StoreBlobsTest, AFileWithTooManyLinksIsStoredAgain) {
  bool too_many = false;
  AdapterStore& store = Open([&](std::string_view operation, const fs::path&) {
    return too_many && operation == "link" ? EMLINK : 0;
  });
  Put(&store, "a", 1).value();
  too_many = true;
  Put(&store, "b", 1).value();
  EXPECT_NE(InodeOf(Weights("a/1")), InodeOf(Weights("b/1")));
  ExpectBooksMatchDisk(store);
  EXPECT_EQ(store.RemoveAll("b"), absl::OkStatus());
  EXPECT_TRUE(fs::exists(Blob(WeightsOf(1))));  // the blob was not b's file
  EXPECT_EQ(store.RemoveAll("a"), absl::OkStatus());
  EXPECT_THAT(NamesIn(root_ / "blobs"), IsEmpty());
}

TEST_F(StoreBlobsTest, AnyOtherFailureToLinkFailsTheCommit) {
  bool fail = false;
  AdapterStore& store = Open([&](std::string_view operation, const fs::path& path) {
    return fail && operation == "link" && path.filename() == HashOf(WeightsOf(1)) ? EIO : 0;
  });
  fail = true;
  EXPECT_EQ(Put(&store, "a", 1).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(NamesIn(root_ / "blobs"), IsEmpty());  // the config's was taken back
  EXPECT_THAT(NamesIn(root_ / "staging"), IsEmpty());
  EXPECT_EQ(store.stored_bytes(), 0);
}

TEST_F(StoreBlobsTest, OpenRemovesBlobsThatAreFilesOfNoVersion) {
  Open();
  Put(store_.get(), "a", 1).value();
  Put(store_.get(), "gone", 2).value();
  EXPECT_EQ(store_->Delete("gone"), absl::OkStatus());
  store_.reset();
  WriteFile(Blob("nobody's"), "nobody's");
  AdapterStore& store = Open();
  EXPECT_EQ(store.recovery().unused_blobs, 3);
  EXPECT_THAT(store.recovery().quarantined, IsEmpty());
  ExpectBooksMatchDisk(store);
  EXPECT_THAT(NamesIn(root_ / "blobs"), SizeIs(2));
  EXPECT_EQ(Open().recovery().unused_blobs, 0);
}

TEST_F(StoreBlobsTest, ABlobIsAVersionsFileOnlyIfItsNameSaysSo) {
  Open();
  const StoredVersion version = Put(store_.get(), "a", 1).value();
  store_.reset();
  // The weights of "a", under the name of other bytes: whoever sends those must not get these.
  fs::create_hard_link(Weights("a/1"), Blob(WeightsOf(2)));
  AdapterStore& store = Open();
  EXPECT_FALSE(fs::exists(Blob(WeightsOf(2))));
  EXPECT_TRUE(fs::exists(Blob(WeightsOf(1))));
  EXPECT_EQ(SeedOf(store, "a"), 1);
}

TEST_F(StoreBlobsTest, UnknownThingsAmongTheBlobsAreQuarantined) {
  Open();
  Put(store_.get(), "a", 1).value();
  store_.reset();
  WriteFile(root_ / "blobs/notes.txt", "x");
  WriteFile(root_ / "blobs" / std::string(64, 'A'), "x");
  fs::create_directories(root_ / "blobs" / std::string(64, 'b'));
  fs::create_symlink("/etc/passwd", Blob("c"));
  ASSERT_EQ(::mkfifo(Blob("d").c_str(), 0600), 0);
  AdapterStore& store = Open();
  EXPECT_THAT(store.recovery().quarantined, SizeIs(5));
  EXPECT_THAT(store.recovery().quarantined[0], HasSubstr("blob.unknown"));
  EXPECT_THAT(NamesIn(root_ / "blobs"), SizeIs(2));
  EXPECT_EQ(SeedOf(store, "a"), 1);
}

TEST_F(StoreBlobsTest, WhatTakesABlobsNameIsMovedOutOfTheWay) {
  AdapterStore& store = Open();
  WriteFile(Blob(WeightsOf(1)), "not these");  // of another size: it is not what its name says
  fs::create_symlink("/etc/passwd", Blob(ConfigOf(1)));
  Put(&store, "a", 1).value();
  EXPECT_EQ(SeedOf(store, "a"), 1);
  EXPECT_THAT(NamesIn(root_ / "quarantine"),
              UnorderedElementsAre("blob." + HashOf(WeightsOf(1)), "blob." + HashOf(ConfigOf(1))));
  ExpectBooksMatchDisk(store);
}

TEST_F(StoreBlobsTest, AfterQuarantineAnUploadOfTheSameBytesBringsGoodOnes) {
  AdapterStore& store = Open();
  Put(&store, "a", 1).value();
  Put(&store, "b", 1).value();
  std::string bad = WeightsOf(1);
  bad[500] = static_cast<char>(bad[500] + 1);
  WriteFile(Weights("a/1"), bad);  // one file: "b" is damaged too
  EXPECT_EQ(store.Verify(*Latest(store, "a")).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(store.Quarantine("a", 1), absl::OkStatus());
  EXPECT_FALSE(fs::exists(Blob(WeightsOf(1))));
  EXPECT_EQ(ReadFile(root_ / "quarantine/a.1" / kAdapterWeightsFile), bad);

  Put(&store, "a", 1).value();
  EXPECT_EQ(SeedOf(store, "a"), 1);
  EXPECT_EQ(SeedOf(store, "b"), -1);
  EXPECT_EQ(store.Quarantine("b", 1), absl::OkStatus());
  EXPECT_TRUE(fs::exists(Blob(WeightsOf(1))));  // by now it is another, good file
  Put(&store, "b", 1).value();
  EXPECT_EQ(SeedOf(Open(), "b"), 1);
  EXPECT_EQ(SeedOf(*store_, "a"), 1);
  ExpectBooksMatchDisk(*store_);
}

TEST_F(StoreBlobsTest, ADamagedBlobIsNoSourceForTheNextUpload) {
  AdapterStore& store = Open();
  Put(&store, "a", 1).value();
  std::string bad = WeightsOf(1);
  bad[500] = static_cast<char>(bad[500] + 1);  // nobody has noticed yet
  WriteFile(Weights("a/1"), bad);
  Put(&store, "b", 1).value();
  EXPECT_EQ(SeedOf(store, "b"), 1);
  EXPECT_EQ(SeedOf(store, "a"), -1);
  EXPECT_EQ(ReadFile(Blob(WeightsOf(1))), WeightsOf(1));
  EXPECT_EQ(ReadFile(root_ / "quarantine" / ("blob." + HashOf(WeightsOf(1)))), bad);
  Put(&store, "c", 1).value();
  EXPECT_EQ(InodeOf(Weights("b/1")), InodeOf(Weights("c/1")));
  EXPECT_THAT(NamesIn(root_ / "quarantine"), SizeIs(1));
  ExpectBooksMatchDisk(store);
  EXPECT_EQ(SeedOf(Open(), "b"), 1);
}

TEST_F(StoreBlobsTest, WhatOpenQuarantinesIsNotLinkedToAgain) {
  Open();
  Put(store_.get(), "a", 1).value();
  Put(store_.get(), "b", 1).value();
  store_.reset();
  fs::resize_file(Weights("a/1"), 100);  // of both
  EXPECT_THAT(Open().recovery().quarantined, SizeIs(2));
  EXPECT_FALSE(fs::exists(Blob(WeightsOf(1))));
  Put(store_.get(), "a", 1).value();
  EXPECT_EQ(SeedOf(*store_, "a"), 1);
}

// A blob whose last version is being removed may be just what a commit links to.
TEST_F(StoreBlobsTest, RemovalAndLinkingDoNotMeet) {
  AdapterStore& store = Open([](std::string_view operation, const fs::path& path) {
    // What was found out just now is a little old when it is acted upon.
    const bool blob = path.parent_path().filename() == "blobs";
    if (operation == "link" || (operation == "remove" && blob)) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    return 0;
  });
  constexpr int kThreads = 3, kRounds = 60;
  std::atomic<int> torn{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const std::string id = fmt::format("tenant-{}/x", t);
      for (int round = 0; round < kRounds; ++round) {
        const int seed = round % 10 == 0 ? 1 : 0;
        EXPECT_EQ(Put(&store, id, seed).status(), absl::OkStatus());
        torn += SeedOf(store, id) != seed;
        EXPECT_TRUE(fs::exists(Blob(WeightsOf(seed))));
        EXPECT_EQ(store.RemoveAll(id), absl::OkStatus());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(torn, 0);
  ExpectBooksMatchDisk(store);
  EXPECT_THAT(NamesIn(root_ / "blobs"), IsEmpty());
  EXPECT_THAT(NamesIn(root_ / "quarantine"), IsEmpty());  // nor was a good one taken for damaged
  EXPECT_EQ(store.stored_bytes(), 0);
}

TEST_F(StoreBlobsTest, TheStoresLimitIsOfBytesOnDisk) {
  AdapterStore::Options options = TestOptions();
  const int64_t size = static_cast<int64_t>(ConfigOf(1).size() + WeightsOf(1).size());
  options.max_store_bytes = 2 * size;
  store_ = AdapterStore::Open(root_, std::move(options)).value();
  for (int i = 0; i < 10; ++i) {  // each needs room while it comes, and none when it is there
    EXPECT_EQ(Put(store_.get(), fmt::format("a{}", i), 1).status(), absl::OkStatus());
  }
  EXPECT_EQ(store_->stored_bytes(), size);
}

}  // namespace
}  // namespace lorad
