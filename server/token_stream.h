// TokenStream: the bounded queue between the engine and one request's reader. The engine pushes
// what a step made, the reader (a gRPC writer, a test) takes it. A full stream never blocks the
// engine: it sees `full()` and pauses the request.
//
// Thread-safe: one writer (the engine's thread), any readers.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "memory/base/clock.h"
#include "model/sampling.h"

namespace lorad {

enum class FinishReason : uint8_t { kStopToken, kStopString, kLength, kScored };

struct Usage {
  int prompt_tokens = 0;
  int cached_tokens = 0;  // of prompt_tokens: found in the prefix cache at the first admission
  int output_tokens = 0;
};

struct Timings {
  Duration queue{};         // arrival to first admission
  Duration adapter_load{};  // of that, waiting for the adapter to become resident
  Duration first_token{};   // arrival to first token (TTFT)
  Duration total{};         // arrival to the end
  int preemptions = 0;
};

// The last thing in a stream. If !status.ok() the other fields say how far it came.
struct StreamEnd {
  absl::Status status;
  FinishReason reason = FinishReason::kLength;
  std::string matched_stop;  // the stop string, for kStopString
  TokenId stop_token = -1;   // for kStopToken
  Usage usage;
  Timings timings;
};

struct StreamEvent {
  std::optional<SampledToken> token;  // empty in events that only carry text or the end
  std::string text;                   // what became certain with this token; whole UTF-8 characters
  std::vector<SampledToken> scores;   // of a scoring request, in order of position
  std::optional<StreamEnd> end;
};

class TokenStream {
 public:
  explicit TokenStream(size_t capacity) : capacity_(capacity) {}

  // Writer. Events beyond the capacity are kept all the same (at most one step's worth): the bound
  // is the engine's to keep.
  void Push(StreamEvent event);
  // Or will be, when `coming` more events are pushed.
  bool full(size_t coming = 0) const {
    return depth_.load(std::memory_order_relaxed) + coming >= capacity_;
  }
  bool half_empty() const { return depth_.load(std::memory_order_relaxed) * 2 <= capacity_; }

  // Reader: everything that is there, possibly nothing.
  std::vector<StreamEvent> Take();
  // Reader: waits until something is there or the time is over.
  std::vector<StreamEvent> WaitAndTake(Duration timeout);

  // Called (by the notifier's thread) when there is something to take; may be null. Set by the
  // reader.
  void SetListener(std::function<void()> on_ready);
  void Notify();

 private:
  const size_t capacity_;
  std::atomic<size_t> depth_{0};
  std::mutex mutex_;
  std::condition_variable ready_;
  std::vector<StreamEvent> events_;  // guarded by mutex_
  std::function<void()> listener_;   // guarded by mutex_
};

// A thread that calls the listeners of streams that a step wrote to, so that the engine's thread
// wakes one thread a step and spends no time in the transport. Until it is started the caller of
// Post calls them itself: whoever steps an engine by hand has everything on one thread.
class StreamNotifier {
 public:
  StreamNotifier() = default;
  ~StreamNotifier();
  StreamNotifier(const StreamNotifier&) = delete;
  StreamNotifier& operator=(const StreamNotifier&) = delete;

  void Start();
  // Engine's thread. Empties `streams`.
  void Post(std::vector<std::shared_ptr<TokenStream>>* streams);

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::shared_ptr<TokenStream>> pending_;  // guarded by mutex_
  bool stopping_ = false;                              // guarded by mutex_
  std::thread thread_;
};

}  // namespace lorad
