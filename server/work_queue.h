// WorkQueue: a few threads for slow work with files (checking uploads, loading adapters), so that
// neither the engine's thread nor gRPC's ever wait for a disk. Thread-safe; tasks run in order of
// arrival, several at a time.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace lorad {

class WorkQueue {
 public:
  explicit WorkQueue(int threads);
  ~WorkQueue() { Stop(); }
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  void Post(std::function<void()> task);
  // Runs what is queued, then joins; what is posted later is dropped. Idempotent.
  void Stop();

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;  // guarded by mutex_
  bool stopping_ = false;                    // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace lorad
