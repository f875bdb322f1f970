#include "tests/unit/memory/store_fixture.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <system_error>

#include "memory/base/check.h"
#include "memory/base/status_macros.h"

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

absl::StatusOr<StagedAdapter> Stage(AdapterStore* store, int seed) {
  const std::string config = ConfigOf(seed), weights = WeightsOf(seed);
  const std::array<DeclaredFile, 2> files = {
      {{std::string(kAdapterConfigFile), static_cast<int64_t>(config.size()), ""},
       {std::string(kAdapterWeightsFile), static_cast<int64_t>(weights.size()), ""}}};
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
