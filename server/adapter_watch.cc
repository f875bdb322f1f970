#include "server/adapter_watch.h"

#include <algorithm>
#include <utility>

#include "memory/base/error_detail.h"

namespace lorad {

absl::Status ShuttingDownStatus() {
  return WithRetryAfter(
      WithReason(absl::UnavailableError("the server is shutting down"), "SHUTTING_DOWN"),
      std::chrono::seconds(1));
}

std::optional<std::string> AdapterWatchHub::Watcher::Take() {
  const std::lock_guard lock(mutex_);
  if (changed_.empty()) return std::nullopt;
  return std::move(changed_.extract(changed_.begin()).value());
}

bool AdapterWatchHub::Watcher::closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

void AdapterWatchHub::Watcher::SetListener(std::function<void()> on_ready) {
  std::function<void()> old;  // what it holds is let go of outside the lock
  const std::lock_guard lock(mutex_);
  old = std::exchange(listener_, std::move(on_ready));
}

void AdapterWatchHub::Watcher::Add(const std::vector<std::string>& ids) {
  const std::lock_guard lock(mutex_);
  for (const std::string& id : ids) {
    if (MaySee(caller_, id)) changed_.insert(id);
  }
}

void AdapterWatchHub::Watcher::Close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

void AdapterWatchHub::Watcher::Notify() {
  std::function<void()> listener;
  {
    const std::lock_guard lock(mutex_);
    if (!changed_.empty() || closed_) listener = listener_;
  }
  if (listener) listener();
}

AdapterWatchHub::AdapterWatchHub() : thread_([this] { Run(); }) {}

AdapterWatchHub::~AdapterWatchHub() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

absl::StatusOr<std::shared_ptr<AdapterWatchHub::Watcher>> AdapterWatchHub::Add(
    std::string_view caller) {
  const std::lock_guard lock(mutex_);
  if (closed_) return ShuttingDownStatus();
  if (watchers_.size() >= kMaxWatchers) {
    return WithRetryAfter(
        WithReason(absl::ResourceExhaustedError("too many calls watch adapters already"),
                   "TOO_MANY_WATCHES"),
        std::chrono::seconds(10));
  }
  const std::shared_ptr<Watcher> watcher(new Watcher(std::string(caller)));
  watchers_.insert(watcher);
  count_.store(static_cast<int>(watchers_.size()));
  return watcher;
}

void AdapterWatchHub::Remove(const std::shared_ptr<Watcher>& watcher) {
  watcher->SetListener(nullptr);
  const std::lock_guard lock(mutex_);
  watchers_.erase(watcher);
  count_.store(static_cast<int>(watchers_.size()));
}

void AdapterWatchHub::Mark(std::string_view id) {
  if (count_.load() == 0) return;  // who comes later reads the adapter as it is by then
  {
    const std::lock_guard lock(mutex_);
    if (!marked_.emplace(id).second) return;
  }
  wake_.notify_one();
}

void AdapterWatchHub::Close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  wake_.notify_all();
}

void AdapterWatchHub::Run() {
  bool told_closed = false;
  while (true) {
    std::vector<std::string> ids;
    std::vector<std::shared_ptr<Watcher>> watchers;
    bool closed = false, stopping = false;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || closed_ != told_closed || !marked_.empty(); });
      ids.assign(marked_.begin(), marked_.end());
      marked_.clear();
      watchers.assign(watchers_.begin(), watchers_.end());
      closed = closed_;
      stopping = stopping_;
    }
    for (const auto& watcher : watchers) {
      watcher->Add(ids);
      if (closed) watcher->Close();
    }
    for (const auto& watcher : watchers) watcher->Notify();
    told_closed = closed;
    if (stopping) return;
  }
}

AdapterFeed::AdapterFeed(const AdapterCatalog* catalog,
                         std::shared_ptr<AdapterWatchHub::Watcher> watcher, std::string caller,
                         std::map<std::string, std::string> labels)
    : catalog_(catalog),
      watcher_(std::move(watcher)),
      caller_(std::move(caller)),
      labels_(std::move(labels)) {}

std::optional<WatchEvent> AdapterFeed::NextInitial() {
  while (true) {
    std::vector<AdapterInfo> next = catalog_->List(caller_, after_, 1);
    if (next.empty()) return std::nullopt;
    after_ = next[0].id();
    if (!next[0].settings->HasLabels(labels_)) continue;
    told_.insert(after_);
    return WatchEvent{WatchEvent::kInitial, after_, std::move(next[0])};
  }
}

std::optional<WatchEvent> AdapterFeed::Next() {
  if (!synced_) {
    if (auto event = NextInitial(); event.has_value()) return event;
    synced_ = true;
    return WatchEvent{WatchEvent::kSynced, {}, {}};
  }
  // An adapter that changed while the first list was told is told again: it was listed as it is,
  // but nobody knows whether before or after the change.
  while (auto id = watcher_->Take()) {
    std::optional<AdapterInfo> info = catalog_->Peek(caller_, *id);
    if (info.has_value() && info->settings->HasLabels(labels_)) {
      told_.insert(*id);
      return WatchEvent{WatchEvent::kChanged, *std::move(id), std::move(info)};
    }
    if (told_.erase(*id) > 0) return WatchEvent{WatchEvent::kDeleted, *std::move(id), {}};
  }
  return std::nullopt;
}

}  // namespace lorad
