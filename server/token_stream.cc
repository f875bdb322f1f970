#include "server/token_stream.h"

#include <iterator>
#include <utility>

namespace lorad {

void TokenStream::Push(StreamEvent event) {
  {
    std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
    depth_.store(events_.size(), std::memory_order_relaxed);
  }
  ready_.notify_all();
}

std::vector<StreamEvent> TokenStream::Take() {
  std::lock_guard lock(mutex_);
  depth_.store(0, std::memory_order_relaxed);
  return std::exchange(events_, {});
}

std::vector<StreamEvent> TokenStream::WaitAndTake(Duration timeout) {
  std::unique_lock lock(mutex_);
  ready_.wait_for(lock, timeout, [this] { return !events_.empty(); });
  depth_.store(0, std::memory_order_relaxed);
  return std::exchange(events_, {});
}

void TokenStream::SetListener(std::function<void()> on_ready) {
  std::function<void()> old;  // destroyed outside the lock: it may own the reader
  {
    std::lock_guard lock(mutex_);
    old = std::exchange(listener_, std::move(on_ready));
  }
}

void TokenStream::Notify() {
  std::function<void()> listener;
  {
    std::lock_guard lock(mutex_);
    listener = listener_;
  }
  if (listener) listener();
}

void StreamNotifier::Start() {
  thread_ = std::thread([this] { Run(); });
}

StreamNotifier::~StreamNotifier() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void StreamNotifier::Post(std::vector<std::shared_ptr<TokenStream>>* streams) {
  if (streams->empty()) return;
  if (!thread_.joinable()) {
    for (const auto& stream : *streams) stream->Notify();
    streams->clear();
    return;
  }
  {
    std::lock_guard lock(mutex_);
    pending_.insert(pending_.end(), std::move_iterator(streams->begin()),
                    std::move_iterator(streams->end()));
  }
  streams->clear();
  wake_.notify_one();
}

void StreamNotifier::Run() {
  std::vector<std::shared_ptr<TokenStream>> batch;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !pending_.empty(); });
      if (pending_.empty()) return;
      std::swap(batch, pending_);
    }
    for (const auto& stream : batch) stream->Notify();
    batch.clear();
  }
}

}  // namespace lorad
