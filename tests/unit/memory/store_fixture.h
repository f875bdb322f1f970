// What the tests of the adapter store share: a directory of their own, and adapters of made-up
// bytes.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "memory/adapter_store.h"

namespace lorad {

// Options whose limits do not depend on the machine's disk.
AdapterStore::Options TestOptions(Disk::Hook hook = nullptr);

// The weights that the tests store for `seed`: the length differs from seed to seed.
std::string WeightsOf(int seed);
std::string ConfigOf(int seed);

// Stages the adapter `seed`, in several chunks.
absl::StatusOr<StagedAdapter> Stage(AdapterStore* store, int seed);
absl::StatusOr<StoredVersion> Put(AdapterStore* store, std::string_view id, int seed,
                                  IfExists if_exists = IfExists::kReplace);
absl::StatusOr<StoredAdapter> Put(AdapterStore* store, std::string_view id, int seed,
                                  const CommitOptions& options);
CommitOptions Replacing();  // options that replace what is there
DeclaredFile Declared(std::string_view name, std::string_view bytes);
std::string HashOf(std::string_view bytes);
// The current version of `id`.
absl::StatusOr<StoredVersion> Latest(const AdapterStore& store, std::string_view id);
// The seed that the files of `version` were made from, or -1 if they are not whole and of one seed.
int SeedOf(const AdapterStore& store, const StoredVersion& version);
// Of the current version of `id`; -1 also if there is none.
int SeedOf(const AdapterStore& store, std::string_view id);

// All that a caller can see of `id`, but for numbers of versions and times:
// "current seed, kept seeds, newest first, settings, revision, facts". "none": there is none.
std::string Describe(const AdapterStore& store, std::string_view id);
// The same, as it would be.
std::string Describe(int seed, const std::vector<int>& kept, std::string_view settings,
                     int64_t revision, std::string_view facts = "");
// Of all adapters, a line each.
std::string DescribeAll(const AdapterStore& store);

// The books of the store in `root` say what lies on disk: sums of bytes, owners, blobs; and nothing
// is left of what was on its way.
void ExpectBooksMatchDisk(const AdapterStore& store, const std::filesystem::path& root);

std::string ReadFile(const std::filesystem::path& path);
void WriteFile(const std::filesystem::path& path, std::string_view bytes);
std::vector<std::string> NamesIn(const std::filesystem::path& directory);

// Runs `body` in a child process: its result is the exit status (-1 if it was killed).
int InChild(const std::function<int()>& body);

class StoreTest : public testing::Test {
 protected:
  StoreTest();
  ~StoreTest() override;
  // Opens (again, after closing).
  AdapterStore& Open(Disk::Hook hook = nullptr);
  absl::Status OpenError(AdapterStore::Options options = TestOptions());

  void ExpectBooksMatchDisk(const AdapterStore& store) {
    lorad::ExpectBooksMatchDisk(store, root_);
  }

  int keep_versions_ = 2;            // of Open
  std::filesystem::path directory_;  // empty at first
  std::filesystem::path root_;       // directory_ / "store"
  std::unique_ptr<AdapterStore> store_;
};

}  // namespace lorad
