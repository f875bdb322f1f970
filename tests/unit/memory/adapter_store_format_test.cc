// Stores that other versions of lorad made, or nobody did; and large ones.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "memory/adapter_store.h"
#include "memory/base/error_detail.h"
#include "memory/store_manifest.h"
#include "tests/unit/memory/store_fixture.h"

namespace lorad {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::string Reason(const absl::Status& status) { return GetErrorDetail(status).reason; }

// A version as the first lorad left it: no facts, no settings, no blobs.
void WriteFormat1Version(const fs::path& root, const std::string& id, int version, int seed) {
  const fs::path directory = root / "adapters" / id / std::to_string(version);
  fs::create_directories(directory);
  WriteFile(directory / kAdapterConfigFile, ConfigOf(seed));
  WriteFile(directory / kAdapterWeightsFile, WeightsOf(seed));
  WriteFile(directory / "manifest.json",
            fmt::format(R"({{
  "create_time_ns": 1700000000123456789,
  "files": {{
    "adapter_config.json": {{
      "bytes": {},
      "sha256": "{}"
    }},
    "adapter_model.safetensors": {{
      "bytes": {},
      "sha256": "{}"
    }}
  }},
  "id": "{}",
  "version": {}
}}
)",
                        ConfigOf(seed).size(), HashOf(ConfigOf(seed)), WeightsOf(seed).size(),
                        HashOf(WeightsOf(seed)), id, version));
}

class StoreFormatTest : public StoreTest {
 protected:
  // As it was left by a process that was killed: "a" was replaced, "gone" deleted, "b" uploaded.
  void WriteFormat1Store() {
    for (const char* name : {"adapters/gone", "staging/3", "trash/4", "quarantine/bad.1"}) {
      fs::create_directories(root_ / name);
    }
    WriteFile(root_ / "format", "1\n");
    WriteFile(root_ / "lock", "");
    WriteFormat1Version(root_, "a", 3, 1);
    WriteFormat1Version(root_, "a", 4, 2);
    WriteFormat1Version(root_, "b", 1, 2);
    WriteFormat1Version(root_, "gone", 7, 5);
    WriteFile(root_ / "adapters/gone/removed_through", "7\n");
    WriteFile(root_ / "staging/3" / kAdapterWeightsFile, "half");
  }
  void ExpectTakenOver() {
    EXPECT_EQ(ReadFile(root_ / "format"), "2\n");
    EXPECT_EQ(DescribeAll(*store_),
              fmt::format("a: {}\nb: {}\n", Describe(2, {1}, "", 1), Describe(2, {}, "", 1)));
    EXPECT_EQ(store_->Get("a")->current.version, 4);
    EXPECT_EQ(store_->Get("a")->current.create_time.time_since_epoch(),
              std::chrono::nanoseconds(1'700'000'000'123'456'789));
    ExpectBooksMatchDisk(*store_);
    EXPECT_THAT(NamesIn(root_ / "quarantine"), ElementsAre("bad.1"));
  }
};

TEST_F(StoreFormatTest, AStoreOfFormat1IsTakenOver) {
  WriteFormat1Store();
  AdapterStore& store = Open();
  EXPECT_EQ(store.recovery().unfinished, 1);
  EXPECT_EQ(store.recovery().superseded, 1);
  EXPECT_THAT(store.recovery().quarantined, IsEmpty());
  ExpectTakenOver();
  Open();
  ExpectTakenOver();

  // And works from now on as any other.
  EXPECT_EQ(store_->Rollback("a", 0)->current.version, 5);
  EXPECT_EQ(store_->UpdateSettings("b", "s")->revision, 2);
  Put(store_.get(), "acme/c", 2).value();  // what "a" and "b" have is no blob: a file of its own
  Put(store_.get(), "acme/d", 2).value();
  EXPECT_EQ(store_->Get("acme/c")->current.weights.inode,
            store_->Get("acme/d")->current.weights.inode);
  EXPECT_EQ(Put(store_.get(), "gone", 6)->version, 8);
  ExpectBooksMatchDisk(*store_);
  const std::string all = DescribeAll(*store_);
  EXPECT_EQ(DescribeAll(Open()), all);
  EXPECT_THAT(all, HasSubstr("a: " + Describe(1, {2, 1}, "", 2)));
}

TEST_F(StoreFormatTest, ATakeoverThatIsCutShortIsFinishedNextTime) {
  int operations = 0;
  for (int n = 0;; ++n) {
    fs::remove_all(root_);
    WriteFormat1Store();
    operations = 0;
    const absl::Status status = OpenError(TestOptions([&](std::string_view, const fs::path&) {
      return operations++ >= n ? EIO : 0;  // as a kill: nothing is done from there on
    }));
    if (!status.ok()) {
      const std::string format = ReadFile(root_ / "format");
      EXPECT_TRUE(format == "1\n" || format == "2\n");
    }
    SCOPED_TRACE(fmt::format("cut at operation {}", n));
    Open();
    ExpectTakenOver();
    if (status.ok() || HasFailure()) break;
  }
  EXPECT_GT(operations, 10);
}

TEST_F(StoreFormatTest, UntilItIsTakenOverNothingThatFormat1DoesNotKnowIsWritten) {
  WriteFormat1Store();
  bool format_written = false;
  const absl::Status status = OpenError(TestOptions([&](std::string_view operation,
                                                        const fs::path& path) {
    if (operation == "rename" && path.filename() == "format.new") format_written = true;
    if (!format_written && path != root_ / "blobs" && operation != "sync_filesystem") {
      EXPECT_TRUE(operation == "mkdir" || operation == "remove" || path.filename() == "format.new")
          << operation << " " << path;
    }
    return 0;
  }));
  EXPECT_EQ(status, absl::OkStatus());
  EXPECT_TRUE(format_written);
}

TEST_F(StoreFormatTest, ANewerFormatIsRefusedAndLeftAlone) {
  Open();
  Put(store_.get(), "good", 1).value();
  store_.reset();
  WriteFile(root_ / "format", "3\n");
  fs::create_directory(root_ / "staging/1");
  fs::remove_all(root_ / "blobs");
  const absl::Status status = OpenError();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Reason(status), "STORE_FORMAT_UNSUPPORTED");
  EXPECT_TRUE(fs::exists(root_ / "staging/1"));
  EXPECT_FALSE(fs::exists(root_ / "blobs"));
  EXPECT_EQ(ReadFile(root_ / "format"), "3\n");
  for (const char* text : {"one", "", "0", "-1", "2 ", "2\n\n"}) {
    WriteFile(root_ / "format", text);
    EXPECT_EQ(OpenError().code(), absl::StatusCode::kDataLoss) << text;
    EXPECT_TRUE(fs::exists(root_ / "staging/1"));
  }
  for (const char* text : {"1", "1\n", "2", "2\n"}) {
    WriteFile(root_ / "format", text);
    EXPECT_THAT(Open().List(), SizeIs(1)) << text;
    store_.reset();
  }
}

// Many adapters, by hand.
TEST_F(StoreFormatTest, TenThousandAdaptersAreOpenedWithoutAWrite) {
  constexpr int kAdapters = 10'000;
  Open();
  store_.reset();
  for (int i = 0; i < kAdapters; ++i) {
    const std::string config = ConfigOf(i % 3), weights = fmt::format("weights {}", i);
    Manifest manifest;
    manifest.version = {
        .id = i % 2 == 0 ? fmt::format("a{}", i) : fmt::format("t{}/a{}", i % 7, i),
        .version = 1 + i % 3,
        .config = {.bytes = static_cast<int64_t>(config.size()), .sha256 = HashOf(config)},
        .weights = {.bytes = static_cast<int64_t>(weights.size()), .sha256 = HashOf(weights)},
        .facts = std::string(300, 'f')};
    const fs::path directory = root_ / "adapters" / DirectoryName(manifest.version.id) /
                               std::to_string(manifest.version.version);
    fs::create_directories(directory);
    WriteFile(directory / kAdapterWeightsFile, weights);
    fs::create_hard_link(directory / kAdapterWeightsFile, root_ / "blobs" / HashOf(weights));
    const fs::path blob = root_ / "blobs" / HashOf(config);
    if (!fs::exists(blob)) WriteFile(blob, config);
    fs::create_hard_link(blob, directory / kAdapterConfigFile);
    WriteFile(directory / kManifestFile, ToManifest(manifest));
  }
  int operations = 0;
  AdapterStore& store = Open([&](std::string_view operation, const fs::path&) {
    ++operations;
    EXPECT_TRUE(operation == "mkdir" || operation == "sync_filesystem") << operation;
    return 0;
  });
  EXPECT_LE(operations, 10);  // and not one for each adapter
  EXPECT_THAT(store.List(), SizeIs(kAdapters));
  EXPECT_EQ(store.OwnerUsage("").adapters, kAdapters / 2);
  EXPECT_EQ(store.UsageByOwner().size(), 8u);
  EXPECT_THAT(store.recovery().quarantined, IsEmpty());
  EXPECT_THAT(NamesIn(root_ / "blobs"), SizeIs(kAdapters + 3));
  const StoredAdapter one = store.Get("t2/a9").value();  // 9 % 7, and odd
  EXPECT_EQ(store.Verify(one.current), absl::OkStatus());
  EXPECT_EQ(one.current.version, 1);
}

}  // namespace
}  // namespace lorad
