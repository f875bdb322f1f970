#include "tests/unit/memory/store_fixture.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <system_error>

#include "memory/base/check.h"
#include "memory/base/status_macros.h"
#include "memory/sha256.h"

namespace lorad {

namespace fs = std::filesystem;

AdapterStore::Options TestOptions(Disk::Hook hook) {
  AdapterStore::Options options;
  options.min_free_bytes = 0;
  options.disk_hook = std::move(hook);
  return options;
}

std::string WeightsOf(int seed) {
  std::string bytes = fmt::format("weights {}:", seed);
  while (bytes.size() < 1000 + static_cast<size_t>(seed % 7) * 100) {
    bytes.push_back(static_cast<char>(bytes.size() * 31 + static_cast<size_t>(seed)));
  }
  return bytes;
}

std::string ConfigOf(int seed) { return fmt::format("{{\"seed\": {}}}", seed); }

DeclaredFile Declared(std::string_view name, std::string_view bytes) {
  return {.name = std::string(name), .bytes = static_cast<int64_t>(bytes.size()), .sha256 = ""};
}

std::string HashOf(std::string_view bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.Finish();
}

absl::StatusOr<StagedAdapter> Stage(AdapterStore* store, int seed) {
  const std::string config = ConfigOf(seed), weights = WeightsOf(seed);
  const std::array<DeclaredFile, 2> files = {Declared(kAdapterConfigFile, config),
                                             Declared(kAdapterWeightsFile, weights)};
  LORAD_ASSIGN_OR_RETURN(StagedAdapter staged, store->Begin(files));
  LORAD_RETURN_IF_ERROR(staged.Write(0, 0, config));
  for (size_t at = 0; at < weights.size(); at += 400) {
    LORAD_RETURN_IF_ERROR(staged.Write(1, static_cast<int64_t>(at), weights.substr(at, 400)));
  }
  return staged;
}

absl::StatusOr<StoredVersion> Put(AdapterStore* store, std::string_view id, int seed,
                                  IfExists if_exists) {
  CommitOptions options;
  options.if_exists = if_exists;
  LORAD_ASSIGN_OR_RETURN(StoredAdapter adapter, Put(store, id, seed, options));
  return std::move(adapter.current);
}

absl::StatusOr<StoredAdapter> Put(AdapterStore* store, std::string_view id, int seed,
                                  const CommitOptions& options) {
  LORAD_ASSIGN_OR_RETURN(StagedAdapter staged, Stage(store, seed));
  return store->Commit(std::move(staged), id, options);
}

CommitOptions Replacing() {
  CommitOptions options;
  options.if_exists = IfExists::kReplace;
  return options;
}

absl::StatusOr<StoredVersion> Latest(const AdapterStore& store, std::string_view id) {
  LORAD_ASSIGN_OR_RETURN(StoredAdapter adapter, store.Get(id));
  return std::move(adapter.current);
}

int SeedOf(const AdapterStore& store, const StoredVersion& version) {
  if (!store.Verify(version).ok()) return -1;
  int seed = -1;
  const std::string config = ReadFile(store.PathOf(version) / kAdapterConfigFile);
  if (std::sscanf(config.c_str(), "{\"seed\": %d}", &seed) != 1) return -1;
  return ReadFile(store.PathOf(version) / kAdapterWeightsFile) == WeightsOf(seed) ? seed : -1;
}

int SeedOf(const AdapterStore& store, std::string_view id) {
  const absl::StatusOr<StoredVersion> latest = Latest(store, id);
  return latest.ok() ? SeedOf(store, *latest) : -1;
}

std::string Describe(int seed, const std::vector<int>& kept, std::string_view settings,
                     int64_t revision, std::string_view facts) {
  std::string seeds;
  for (const int kept_seed : kept) seeds += fmt::format(" {}", kept_seed);
  return fmt::format("seed {}, kept [{} ], settings '{}', revision {}, facts '{}'", seed, seeds,
                     settings, revision, facts);
}

std::string Describe(const AdapterStore& store, std::string_view id) {
  const absl::StatusOr<StoredAdapter> adapter = store.Get(id);
  if (!adapter.ok()) return "none";
  std::vector<int> kept;
  for (const StoredVersion& version : adapter->kept) kept.push_back(SeedOf(store, version));
  return Describe(SeedOf(store, adapter->current), kept, adapter->settings, adapter->revision,
                  adapter->current.facts);
}

std::string DescribeAll(const AdapterStore& store) {
  std::string text;
  for (const StoredAdapter& adapter : store.List()) {
    text += fmt::format("{}: {}\n", adapter.id(), Describe(store, adapter.id()));
  }
  return text;
}

void ExpectBooksMatchDisk(const AdapterStore& store, const fs::path& root) {
  std::map<uint64_t, int64_t> files;  // inode -> bytes, of all versions
  std::map<std::string, int64_t> bytes_of_owner, adapters_of_owner;
  for (const StoredAdapter& adapter : store.List()) {
    ++adapters_of_owner[std::string(OwnerOf(adapter.id()))];
  }
  for (const auto& entry : fs::recursive_directory_iterator(root / "adapters")) {
    const fs::path name = entry.path().filename();
    if (name != kAdapterConfigFile && name != kAdapterWeightsFile) continue;
    struct stat info;
    ASSERT_EQ(::lstat(entry.path().c_str(), &info), 0);
    files[info.st_ino] = info.st_size;
    const std::string directory = entry.path().parent_path().parent_path().filename();
    const size_t tilde = directory.find('~');
    bytes_of_owner[tilde == std::string::npos ? "" : directory.substr(0, tilde)] += info.st_size;
  }
  int64_t stored_bytes = 0;
  for (const auto& [inode, bytes] : files) stored_bytes += bytes;
  EXPECT_EQ(store.stored_bytes(), stored_bytes);
  for (const auto& [owner, usage] : store.UsageByOwner()) {
    EXPECT_EQ(usage.bytes, bytes_of_owner[owner]) << owner;
    EXPECT_EQ(usage.adapters, adapters_of_owner[owner]) << owner;
    EXPECT_EQ(store.OwnerUsage(owner).bytes, usage.bytes);
  }
  EXPECT_EQ(store.UsageByOwner().size(), bytes_of_owner.size());
  EXPECT_EQ(NamesIn(root / "staging"), std::vector<std::string>());
  EXPECT_EQ(NamesIn(root / "trash"), std::vector<std::string>());
  for (const std::string& name : NamesIn(root / "blobs")) {
    struct stat info;
    ASSERT_EQ(::lstat((root / "blobs" / name).c_str(), &info), 0);
    EXPECT_TRUE(files.contains(info.st_ino)) << name << " is a file of no version";
    EXPECT_EQ(HashOf(ReadFile(root / "blobs" / name)), name);
  }
}

std::string ReadFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void WriteFile(const fs::path& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  out.close();
  LORAD_CHECK(out.good());
}

std::vector<std::string> NamesIn(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

int InChild(const std::function<int()>& body) {
  const pid_t child = ::fork();
  LORAD_CHECK(child >= 0);
  if (child == 0) ::_exit(body());
  int status = 0;
  LORAD_CHECK(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

StoreTest::StoreTest() {
  // In memory, where syncing is free: no test can see whether it reached a disk. TMPDIR chooses
  // another place.
  const bool in_memory = std::getenv("TMPDIR") == nullptr && ::access("/dev/shm", W_OK) == 0;
  const fs::path parent = in_memory ? fs::path("/dev/shm") : fs::temp_directory_path();
  std::string name = (parent / "lorad_store_XXXXXX").string();
  LORAD_CHECK(::mkdtemp(name.data()) != nullptr);
  directory_ = fs::canonical(name);
  root_ = directory_ / "store";
}

StoreTest::~StoreTest() {
  store_.reset();
  std::error_code ignored;
  fs::remove_all(directory_, ignored);
}

AdapterStore& StoreTest::Open(Disk::Hook hook) {
  store_.reset();
  AdapterStore::Options options = TestOptions(std::move(hook));
  options.keep_versions = keep_versions_;
  auto opened = AdapterStore::Open(root_, std::move(options));
  if (!opened.ok()) std::fprintf(stderr, "%s\n", opened.status().ToString().c_str());
  LORAD_CHECK(opened.ok());
  store_ = *std::move(opened);
  return *store_;
}

absl::Status StoreTest::OpenError(AdapterStore::Options options) {
  store_.reset();
  return AdapterStore::Open(root_, std::move(options)).status();
}

}  // namespace lorad
