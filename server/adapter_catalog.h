// AdapterCatalog: which adapters there are. It joins the store's bytes (memory/adapter_store.h)
// with what they mean for this base model (model/peft_adapter.h): nothing becomes visible before it
// is checked whole, laid out for the backend and durable. Requests resolve a name once and hold the
// version they got; a version that was replaced or deleted is forgotten, in the pool and on disk,
// when its last holder lets go.
//
// Thread-safe. Create and Commit read and write files: call them from a WorkQueue, not from gRPC's
// or the engine's threads.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "memory/adapter_store.h"
#include "model/model_config.h"
#include "model/peft_adapter.h"
#include "server/adapter_version.h"
#include "server/engine.h"

namespace lorad {

class AdapterCatalog {
 public:
  struct Parts {  // borrowed
    AdapterStore* store = nullptr;
    const ModelConfig* model = nullptr;
    const kernels::Backend* backend = nullptr;
    size_t page_bytes = 0;
    uint32_t pool_pages = 0;
    AdapterLimits limits;
    int max_adapters = 10000;
    std::vector<std::filesystem::path> roots;  // CreateFromPath reads below these only
  };
  // `on_unused`: the version's image may leave the pool. Called on whatever thread dropped the last
  // reference. `on_count`: the number of adapters changed.
  AdapterCatalog(Parts parts, std::function<void(AdapterVersionId)> on_unused,
                 std::function<void(int)> on_count);

  // At start: takes in what the store recovered. An adapter that no longer checks out (made for
  // another base model) is left on disk, answers as if absent, and is returned as "name: why".
  std::vector<std::string> Recover();

  // NotFound with the resource's name.
  absl::StatusOr<std::shared_ptr<const AdapterVersion>> Resolve(std::string_view id) const;

  // From a directory below one of the roots (for clients), or from any (for the operator's own
  // configuration).
  absl::StatusOr<std::shared_ptr<const AdapterVersion>> CreateFromPath(
      const std::filesystem::path& path, const std::string& id, bool replace);
  absl::StatusOr<std::shared_ptr<const AdapterVersion>> Import(const std::filesystem::path& path,
                                                               const std::string& id);
  absl::StatusOr<std::shared_ptr<const AdapterVersion>> Commit(StagedAdapter staged,
                                                               const std::string& id, bool replace);
  // Quick refusals before bytes are sent: bad id, exists already, too many adapters.
  absl::Status CheckCreatable(const std::string& id, bool replace) const;
  absl::Status Delete(const std::string& id);

  std::vector<std::shared_ptr<const AdapterVersion>> List() const;  // by name
  AdapterStore& store() { return *parts_.store; }

  // Reads `version`'s files again and writes its image into pages of `slab`. DataLoss if they are
  // no longer what was checked.
  absl::StatusOr<AdapterLayoutPtr> LoadImage(const AdapterVersion& version,
                                             const kernels::PageSlab& slab,
                                             std::span<const uint32_t> pages) const;

 private:
  absl::StatusOr<std::unique_ptr<AdapterVersion>> Check(const std::filesystem::path& dir,
                                                        AdapterCheck check) const;
  std::shared_ptr<const AdapterVersion> Publish(std::unique_ptr<AdapterVersion> version,
                                                const StoredVersion& stored);

  const Parts parts_;
  const std::shared_ptr<const std::function<void(AdapterVersionId)>> on_unused_;
  const std::function<void(int)> on_count_;
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const AdapterVersion>, std::less<>>
      current_;                   // guarded by mutex_
  AdapterVersionId next_id_ = 1;  // guarded by mutex_
};

}  // namespace lorad
