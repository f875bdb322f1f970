// AdapterVersion: the facts of one immutable version of one adapter. Requests hold it by shared_ptr
// from the moment they name it until they end, so a version that was replaced or deleted lives
// exactly as long as somebody runs on it. Thousands are kept: it holds no layout (that lives as
// long as the image does) and nothing that the store has already.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "memory/adapter_cache.h"
#include "memory/adapter_store.h"
#include "scheduler/planner.h"
#include "server/adapter_facts.h"

namespace lorad {

// What still changes about a version. Any thread reads it; the comments say who writes.
struct AdapterActivity {
  std::atomic<int64_t> requests{0};      // engine: that ran on it since the server started
  std::atomic<int64_t> last_unix_ms{0};  // engine: when one last began to; 0: never
  std::atomic<int> active{0};            // engine: waiting and running now
  std::atomic<AdapterState> state{AdapterState::kStored};  // engine
  std::atomic<int64_t> staged_bytes{0};  // loader: of its image in host memory, beside the pool
  // Catalog: it is not the current version any more. Its pages go with its last request.
  std::atomic<bool> superseded{false};
  // Catalog: it is not kept for rollback either. Its files go with its last holder.
  std::atomic<bool> dropped{false};

  void SetLastError(std::string error) {
    const std::lock_guard lock(mutex);
    last_error = std::move(error);
  }
  std::string LastError() const {
    const std::lock_guard lock(mutex);
    return last_error;
  }

  // The loader's: how its files were when their hashes were found right.
  void SetVerified(const AdapterStore::Stamp& stamp) {
    const std::lock_guard lock(mutex);
    verified = stamp;
  }
  bool IsVerified(const AdapterStore::Stamp& stamp) const {
    const std::lock_guard lock(mutex);
    return verified == stamp;
  }

 private:
  mutable std::mutex mutex;
  std::string last_error;          // why its last load failed; guarded by mutex
  AdapterStore::Stamp verified{};  // guarded by mutex
};

struct AdapterVersion {
  AdapterVersionId id = 0;  // unique in this process: the key of AdapterCache
  std::string name;         // "foo" or "acme/foo", without the "adapters/" prefix
  int64_t version = 0;      // increases with each replacement, for ever

  uint64_t image_bytes = 0;           // of its image
  uint32_t pages = 0;                 // that the image takes
  AdapterFactsPtr facts;              // null: it does not fit the base model and is kept only
  std::string sha256, config_sha256;  // of its files, hex
  int64_t file_bytes = 0;
  int64_t origin_version = 0;  // whose files it has, if it was made by a rollback
  std::chrono::system_clock::time_point create_time;

  // Shared with the engine, which may know the image for longer than anybody holds the version.
  std::shared_ptr<AdapterActivity> activity = std::make_shared<AdapterActivity>();

  std::string_view tenant() const { return OwnerOf(name); }  // empty: public
};
using AdapterVersionPtr = std::shared_ptr<const AdapterVersion>;

}  // namespace lorad
