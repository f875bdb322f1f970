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
// The current version of `id`.
absl::StatusOr<StoredVersion> Latest(const AdapterStore& store, std::string_view id);
// The seed that the files of `version` were made from, or -1 if they are not whole and of one seed.
int SeedOf(const AdapterStore& store, const StoredVersion& version);
// Of the current version of `id`; -1 also if there is none.
int SeedOf(const AdapterStore& store, std::string_view id);

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

  int keep_versions_ = 2;            // of Open
  std::filesystem::path directory_;  // empty at first
  std::filesystem::path root_;       // directory_ / "store"
  std::unique_ptr<AdapterStore> store_;
};

}  // namespace lorad
