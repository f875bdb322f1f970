// What the tests of the catalog share: a real store in a directory of its own, a small base model
// on the reference backend, PEFT adapters of made-up values, and a record of what the catalog told.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/adapter_catalog.h"
#include "tests/unit/model/safetensors_writer.h"

namespace lorad {

ModelConfig CatalogModel();

// An adapter on q_proj of the first layer. Equal ones have equal files.
struct Recipe {
  int rank = 2;
  float value = 0.5f;
  std::string base_model = "acme/base";
};

class CatalogTest : public testing::Test {
 protected:
  CatalogTest();
  ~CatalogTest() override;

  // Opens the store (again) and a catalog on it; `report_` is what Recover said.
  AdapterCatalog& Open();
  void Close();

  // The recipe's two files; `bytes` of both.
  std::vector<std::pair<std::string, std::string>> Files(const Recipe& recipe) const;
  int64_t BytesOf(const Recipe& recipe) const;
  std::vector<DeclaredFile> Declared(const Recipe& recipe) const;  // with hashes
  std::filesystem::path WriteFolder(const Recipe& recipe);         // below a root
  absl::StatusOr<StagedAdapter> Stage(const Recipe& recipe);
  absl::StatusOr<AdapterInfo> Create(const NewAdapter& wanted, const Recipe& recipe = {});
  // REQUIRES: it works.
  AdapterInfo Put(const std::string& id, const Recipe& recipe = {},
                  std::optional<AdapterSettings> settings = {});

  // "retire ID" (AdapterVersion::id), "pin foo@1", "unpin foo@1", "changed foo": since the last
  // call.
  std::vector<std::string> TakeEvents();
  // Version directories below the store: "foo/1", "acme~foo/2".
  std::vector<std::string> VersionsOnDisk() const;
  void RunLater();  // what was put off to another thread

  TemporaryFolder folder_;
  ModelConfig model_ = CatalogModel();
  size_t page_bytes_ = 4096;
  uint32_t pool_pages_ = 64;
  int keep_versions_ = 2;
  int max_adapters_ = 1000;
  uint64_t max_pinned_pages_ = 8;
  Disk::Hook disk_hook_;  // asked from the next Open on
  TenantTable tenants_;
  std::unique_ptr<kernels::Backend> backend_;
  std::unique_ptr<AdapterStore> store_;
  std::unique_ptr<AdapterImages> images_;
  std::unique_ptr<AdapterCatalog> catalog_;
  std::vector<std::string> report_;
  int counted_ = -1;  // adapters, as the catalog said last
  // If it is retired before it is marked as superseded, the engine would keep it: "retire ID
  // early".
  AdapterVersionPtr watched_;

 private:
  struct Record {
    std::mutex mutex;
    std::vector<std::string> events;
    std::vector<std::function<void()>> later;
    int openings = 0;
  };
  void Note(std::string event);

  const std::shared_ptr<Record> record_ = std::make_shared<Record>();
  int folders_ = 0;
};

// The reason that an error carries, or "OK".
std::string ReasonOf(const absl::Status& status);

}  // namespace lorad
