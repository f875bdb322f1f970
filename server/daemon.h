// Daemon: builds every part from a Config in the order of their dependence, serves, drains. The
// composition root: the only place that knows all parts.
//
// Thread: the caller's (main). Start once, then Drain once.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/config.h"

namespace lorad {

class Daemon {
 public:
  // Loads the model, opens the store, listens. Errors say which part failed; nothing is left
  // running.
  static absl::StatusOr<std::unique_ptr<Daemon>> Start(const Config& config);
  ~Daemon();

  // False after the device failed: the process must exit and be started again.
  bool healthy() const;
  // Health NOT_SERVING, no new requests; what runs may finish for `drain_timeout_s`; then
  // everything stops.
  void Drain();
  int port() const;          // of gRPC
  int metrics_port() const;  // 0: none

 private:
  struct Parts;
  explicit Daemon(std::unique_ptr<Parts> parts);

  std::unique_ptr<Parts> parts_;
};

}  // namespace lorad
