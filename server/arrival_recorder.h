// ArrivalRecorder: writes a recording of arrivals (server/arrival_record.h) to a file. Whoever ends
// a request hands its record over and goes on; a thread of the recorder's writes them, once a
// second. A process that dies leaves a file of whole lines but for the last one, short of what came
// in the last second.
//
// At most `max_bytes` are kept: a file that has half of it becomes FILE.1 (the one before goes) and
// another is begun. So does what an earlier process left. If the disk is slower than requests,
// records are dropped and counted; serving never waits.
//
// Tenants become numbers by a hash with a key that is drawn at the start and kept nowhere.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "memory/base/clock.h"
#include "server/arrival_record.h"
#include "server/request.h"

namespace lorad {

class ArrivalRecorder {
 public:
  struct Options {
    std::string path;
    uint64_t max_bytes = uint64_t{256} << 20;
    size_t max_queued = 100000;  // records that wait for the disk
    Duration write_every = std::chrono::seconds(1);
  };
  // InvalidArgument: the file cannot be written. `clock` is borrowed.
  static absl::StatusOr<std::unique_ptr<ArrivalRecorder>> Open(Options options, const Clock* clock);
  ~ArrivalRecorder();  // writes what is left
  ArrivalRecorder(const ArrivalRecorder&) = delete;
  ArrivalRecorder& operator=(const ArrivalRecorder&) = delete;

  // A record before it is one: its tenant is still a name.
  struct Entry {
    ArrivalRecord record;
    std::string tenant;
  };

  // Any thread; quick. The request as it came, without an outcome.
  Entry Begin(const GenerationRequest& request) const;
  // It ended. (Those that the engine took.)
  void End(Entry entry, const StreamEnd& end);
  // The engine did not take it; recorded if that was for want of room, not for what it asked.
  void Refuse(Entry entry, const absl::Status& status);

  uint64_t dropped() const;  // since the start

 private:
  ArrivalRecorder(Options options, const Clock* clock);
  void Add(Entry entry);
  uint64_t NumberOf(std::string_view tenant) const;
  bool BeginFile();
  void Run();
  void Write(const std::vector<Entry>& entries);

  const Options options_;
  const Clock* const clock_;
  const TimePoint start_;
  const int64_t start_unix_us_;
  const std::string key_;

  // The writer's thread.
  std::FILE* file_ = nullptr;
  uint64_t written_ = 0;  // bytes of this file

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Entry> queued_;  // guarded by mutex_
  uint64_t dropped_ = 0;       // guarded by mutex_
  bool stopping_ = false;      // guarded by mutex_
  std::thread thread_;
};

}  // namespace lorad
