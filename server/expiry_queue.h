// ExpiryQueue: which requests have to be looked at when, because their time may be over then. A
// step looks at those that are due and at no others, however many wait.
//
// Thread: the engine's only.
#pragma once

#include <utility>

#include "absl/container/btree_set.h"
#include "memory/base/clock.h"
#include "scheduler/waiting_request.h"

namespace lorad {

class ExpiryQueue {
 public:
  // TimePoint::max(): never.
  void Add(RequestId id, TimePoint at) {
    if (at != TimePoint::max()) due_.insert({at, id});
  }
  void Remove(RequestId id, TimePoint at) { due_.erase({at, id}); }
  // Takes out one that is due; false: none is.
  bool TakeDue(TimePoint now, RequestId* id) {
    if (due_.empty() || due_.begin()->first > now) return false;
    *id = due_.begin()->second;
    due_.erase(due_.begin());
    return true;
  }

 private:
  absl::btree_set<std::pair<TimePoint, RequestId>> due_;
};

}  // namespace lorad
