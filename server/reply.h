// What the service files share when they answer: values of the wire's well-known types, and a call
// that is over at once.
#pragma once

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "absl/status/status.h"
#include "server/status_conversion.h"

namespace lorad {

// Negative durations become zero.
inline void SetDuration(std::chrono::nanoseconds d, google::protobuf::Duration* out) {
  const int64_t ns = std::max<int64_t>(0, d.count());
  out->set_seconds(ns / 1000000000);
  out->set_nanos(static_cast<int32_t>(ns % 1000000000));
}

inline void SetTimestamp(std::chrono::system_clock::time_point time,
                         google::protobuf::Timestamp* out) {
  const int64_t ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
  out->set_seconds(ms / 1000);
  out->set_nanos(static_cast<int32_t>(ms % 1000 * 1000000));
}

inline grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext* context,
                                           const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

}  // namespace lorad
