#include "tests/unit/server/catalog_fixture.h"

#include <fmt/format.h>

#include <algorithm>

#include "memory/base/check.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "memory/sha256.h"

namespace lorad {
namespace {

std::string HashOf(std::string_view bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.Finish();
}

std::string Label(const AdapterVersion& version) {
  return fmt::format("{}@{}", version.name, version.version);
}

}  // namespace

ModelConfig CatalogModel() {
  ModelConfig model;
  model.architecture = "LlamaForCausalLM";
  model.vocab_size = 48;
  model.hidden_size = 64;
  model.layers = 2;
  model.heads = 4;
  model.kv_heads = 2;
  model.head_dim = 16;
  model.ffn_size = 96;
  return model;
}

CatalogTest::CatalogTest() : backend_(kernels::NewReferenceBackend()) {}

CatalogTest::~CatalogTest() { Close(); }

void CatalogTest::Close() {
  watched_.reset();
  catalog_.reset();
  images_.reset();
  RunLater();
  {
    // As a queue that was stopped: what is posted later is dropped.
    const std::lock_guard lock(record_->mutex);
    ++record_->openings;
  }
  store_.reset();
}

AdapterCatalog& CatalogTest::Open() {
  Close();
  auto store = AdapterStore::Open(
      folder_.path() / "state",
      {.min_free_bytes = 0, .keep_versions = keep_versions_, .disk_hook = disk_hook_});
  LORAD_CHECK(store.ok());
  store_ = *std::move(store);
  images_ = std::make_unique<AdapterImages>(AdapterImages::Parts{.model = &model_,
                                                                 .ranks = {backend_.get()},
                                                                 .limits = {},
                                                                 .page_bytes = page_bytes_,
                                                                 .pool_pages = pool_pages_});
  catalog_ = std::make_unique<AdapterCatalog>(
      AdapterCatalog::Parts{.store = store_.get(),
                            .images = images_.get(),
                            .tenants = &tenants_,
                            .max_adapters = max_adapters_,
                            .max_pinned_pages = max_pinned_pages_,
                            .roots = {folder_.path() / "root"},
                            .recovery_threads = 3},
      AdapterCatalog::Hooks{
          .retire =
              [this](AdapterVersionId id) {
                const bool early = watched_ != nullptr && watched_->id == id &&
                                   !watched_->activity->superseded.load();
                Note(fmt::format("retire {}{}", id, early ? " early" : ""));
              },
          .set_pinned =
              [this](const AdapterVersionPtr& version, bool pinned) {
                Note(fmt::format("{} {}", pinned ? "pin" : "unpin", Label(*version)));
              },
          .changed = [this](const std::string& id) { Note("changed " + id); },
          .counted = [this](int n) { counted_ = n; },
          .later =
              [record = record_, opening = record_->openings](std::function<void()> task) {
                const std::lock_guard lock(record->mutex);
                if (record->openings == opening) record->later.push_back(std::move(task));
              }});
  report_ = catalog_->Recover();
  return *catalog_;
}

void CatalogTest::Note(std::string event) {
  const std::lock_guard lock(record_->mutex);
  record_->events.push_back(std::move(event));
}

std::vector<std::string> CatalogTest::TakeEvents() {
  const std::lock_guard lock(record_->mutex);
  return std::exchange(record_->events, {});
}

void CatalogTest::RunLater() {
  std::vector<std::function<void()>> tasks;
  {
    const std::lock_guard lock(record_->mutex);
    tasks = std::exchange(record_->later, {});
  }
  for (const auto& task : tasks) task();
}

std::vector<std::pair<std::string, std::string>> CatalogTest::Files(const Recipe& recipe) const {
  const int64_t width = model_.hidden_size;
  const std::string key = "base_model.model.model.layers.0.self_attn.q_proj.lora_";
  return {{std::string(kAdapterConfigFile),
           fmt::format(R"({{"peft_type":"LORA","r":{},"lora_alpha":{},"target_modules":["q_proj"],)"
                       R"("base_model_name_or_path":"{}"}})",
                       recipe.rank, 2 * recipe.rank, recipe.base_model)},
          {std::string(kAdapterWeightsFile),
           SafetensorsBytes(
               {FilledTensor(key + "A.weight", {recipe.rank, width}, recipe.value),
                FilledTensor(key + "B.weight", {model_.q_size(), recipe.rank}, recipe.value)})}};
}

int64_t CatalogTest::BytesOf(const Recipe& recipe) const {
  int64_t bytes = 0;
  for (const auto& [name, content] : Files(recipe)) bytes += static_cast<int64_t>(content.size());
  return bytes;
}

std::vector<DeclaredFile> CatalogTest::Declared(const Recipe& recipe) const {
  std::vector<DeclaredFile> files;
  for (const auto& [name, content] : Files(recipe)) {
    files.push_back({name, static_cast<int64_t>(content.size()), HashOf(content)});
  }
  return files;
}

std::filesystem::path CatalogTest::WriteFolder(const Recipe& recipe) {
  const std::string name = fmt::format("root/{}", folders_++);
  std::filesystem::create_directories(folder_.path() / name);
  for (const auto& [file, content] : Files(recipe)) folder_.Write(name + "/" + file, content);
  return folder_.path() / name;
}

absl::StatusOr<StagedAdapter> CatalogTest::Stage(const Recipe& recipe) {
  std::vector<DeclaredFile> files = Declared(recipe);
  for (DeclaredFile& file : files) file.sha256.clear();
  LORAD_ASSIGN_OR_RETURN(StagedAdapter staged, store_->Begin(files));
  int index = 0;
  for (const auto& [name, content] : Files(recipe)) {
    LORAD_RETURN_IF_ERROR(staged.Write(index++, 0, content));
  }
  return staged;
}

absl::StatusOr<AdapterInfo> CatalogTest::Create(const NewAdapter& wanted, const Recipe& recipe) {
  LORAD_RETURN_IF_ERROR(catalog_->CheckCreatable(wanted, Declared(recipe)));
  LORAD_ASSIGN_OR_RETURN(StagedAdapter staged, Stage(recipe));
  return catalog_->Commit(std::move(staged), wanted);
}

AdapterInfo CatalogTest::Put(const std::string& id, const Recipe& recipe,
                             std::optional<AdapterSettings> settings) {
  auto made = Create({.id = id, .replace = true, .settings = std::move(settings)}, recipe);
  EXPECT_TRUE(made.ok()) << made.status();
  LORAD_CHECK(made.ok());
  return *made;
}

std::vector<std::string> CatalogTest::VersionsOnDisk() const {
  std::vector<std::string> found;
  for (const auto& id : std::filesystem::directory_iterator(folder_.path() / "state/adapters")) {
    for (const auto& version : std::filesystem::directory_iterator(id)) {
      if (!version.is_directory()) continue;
      found.push_back(id.path().filename().string() + "/" + version.path().filename().string());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::string ReasonOf(const absl::Status& status) {
  return status.ok() ? "OK" : GetErrorDetail(status).reason;
}

}  // namespace lorad
