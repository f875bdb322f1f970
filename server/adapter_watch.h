// Watching adapters: AdapterWatchHub takes note of which adapters changed and tells everyone who
// watches; AdapterFeed turns that into what one watcher is to be told.
//
// Changes are noted by id, and one that is noted twice before it was told is told once, with the
// adapter as it is then. So what is kept for a watcher is bounded by the number of adapters, a slow
// one costs nobody else anything, and it never misses the latest state.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "server/adapter_catalog.h"

namespace lorad {

// Thread-safe. Changes reach the watchers by a thread of the hub's own.
class AdapterWatchHub {
 public:
  static constexpr int kMaxWatchers = 1024;

  // What one watcher has not been told yet. Thread-safe.
  class Watcher {
   public:
    // The first id (in their order) that changed, which is then forgotten; none: nothing changed.
    std::optional<std::string> Take();
    // No more changes will come: the server drains.
    bool closed() const;
    // Called on the hub's thread when there is something to take or the hub closed; may be null.
    void SetListener(std::function<void()> on_ready);

   private:
    friend class AdapterWatchHub;
    explicit Watcher(std::string caller) : caller_(std::move(caller)) {}
    void Add(const std::vector<std::string>& ids);
    void Close();
    void Notify();

    const std::string caller_;  // tenant, or empty: the operator
    mutable std::mutex mutex_;
    std::set<std::string> changed_;   // guarded by mutex_
    bool closed_ = false;             // guarded by mutex_
    std::function<void()> listener_;  // guarded by mutex_
  };

  AdapterWatchHub();
  ~AdapterWatchHub();
  AdapterWatchHub(const AdapterWatchHub&) = delete;
  AdapterWatchHub& operator=(const AdapterWatchHub&) = delete;

  // From now on `caller` is told of what it may see. Unavailable SHUTTING_DOWN after Close;
  // ResourceExhausted TOO_MANY_WATCHES.
  absl::StatusOr<std::shared_ptr<Watcher>> Add(std::string_view caller);
  void Remove(const std::shared_ptr<Watcher>& watcher);

  // The adapter of this id is not what it was. Quick: also for the engine's thread.
  void Mark(std::string_view id);
  // All watchers end, and no new ones come.
  void Close();

 private:
  void Run();

  std::atomic<int> count_{0};  // of watchers_: nothing is noted if nobody watches
  std::mutex mutex_;
  std::condition_variable wake_;
  absl::flat_hash_set<std::string> marked_;      // guarded by mutex_: not given to watchers yet
  std::set<std::shared_ptr<Watcher>> watchers_;  // guarded by mutex_
  bool closed_ = false;                          // guarded by mutex_
  bool stopping_ = false;                        // guarded by mutex_
  std::thread thread_;
};

// What a server that drains says to those who watch or ask.
absl::Status ShuttingDownStatus();

struct WatchEvent {
  enum Kind { kInitial, kSynced, kChanged, kDeleted };
  Kind kind = kInitial;
  std::string id;                   // not of kSynced
  std::optional<AdapterInfo> info;  // of kInitial and kChanged
};

// One watcher's events: first every adapter that it may see and that has its labels, then kSynced,
// then the changes. One thread at a time.
class AdapterFeed {
 public:
  // Both are borrowed. REQUIRES: `watcher` was added before.
  AdapterFeed(const AdapterCatalog* catalog, std::shared_ptr<AdapterWatchHub::Watcher> watcher,
              std::string caller, std::map<std::string, std::string> labels);

  // None: nothing more to tell now.
  std::optional<WatchEvent> Next();

 private:
  std::optional<WatchEvent> NextInitial();

  const AdapterCatalog* const catalog_;
  const std::shared_ptr<AdapterWatchHub::Watcher> watcher_;
  const std::string caller_;
  const std::map<std::string, std::string> labels_;
  bool synced_ = false;
  std::string after_;           // the id that was told last, until synced
  std::set<std::string> told_;  // ids that the watcher takes to be there
};

}  // namespace lorad
