// Client: a connection to a lorad server. Messages are those of proto/lorad/v1 (every field is
// described there); errors are absl::Status, whose details client/error.h decodes. No gRPC type
// appears here.
//
// Thread: any; calls may run at the same time. Blocking calls block their thread only. Callbacks of
// GenerateAsync run on the library's threads, one at a time for one call; they must not block.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lorad/v1/adapters.pb.h"
#include "lorad/v1/admin.pb.h"
#include "lorad/v1/inference.pb.h"

namespace lorad {

inline constexpr char kDefaultAddress[] = "127.0.0.1:7433";

struct ClientOptions {
  std::string address = kDefaultAddress;
  // TCP connections; streams take turns on them. More than one matters with hundreds of streams:
  // those of one connection share its flow-control window.
  int connections = 1;
  // The tenant that every call speaks for; empty: the operator.
  std::string tenant = {};
};

struct CallOptions {
  std::optional<std::chrono::milliseconds> timeout;  // none: no deadline
};

// A running Generate. The destructor cancels it and waits for its last callback.
// REQUIRES: not destroyed from one of its own callbacks; the client outlives it.
class GenerateCall {
 public:
  virtual ~GenerateCall() = default;
  virtual void Cancel() = 0;  // any thread, callbacks included; on_done still comes
  virtual void Wait() = 0;    // returns after on_done returned
};

struct GenerateCallbacks {
  std::function<void(const v1::GenerateResponse&)> on_message;  // borrowed for the call
  std::function<void(const absl::Status&)> on_done;             // exactly once, the last
};

struct AdapterUpload {
  std::string adapter_id;
  std::string directory;  // on this machine: adapter_config.json, adapter_model.safetensors
  bool replace = false;
  bool preload = false;
  std::optional<v1::AdapterSettings> settings = std::nullopt;  // none: those that it has
  std::string etag = {};  // replace only this state of it; empty: any
};

struct AdapterFilter {
  v1::Adapter::State state = v1::Adapter::STATE_UNSPECIFIED;  // unspecified: any
  std::map<std::string, std::string> labels = {};             // all of them
};

class Client {
 public:
  // Connects when the first call is made.
  explicit Client(const ClientOptions& options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Blocks until the stream ends. `on_message` (in this thread, may be null) returns false to
  // cancel. The final message's `finish`, or the status that ended the stream: Internal if it ended
  // well but without `finish`.
  absl::StatusOr<v1::GenerateFinish> Generate(
      const v1::GenerateRequest& request,
      const std::function<bool(const v1::GenerateResponse&)>& on_message,
      const CallOptions& options = {});
  // Starts and returns at once. Both callbacks must be set.
  std::unique_ptr<GenerateCall> GenerateAsync(const v1::GenerateRequest& request,
                                              GenerateCallbacks callbacks,
                                              const CallOptions& options = {});
  absl::StatusOr<v1::ScoreResponse> Score(const v1::ScoreRequest& request,
                                          const CallOptions& options = {});
  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request,
                                                const CallOptions& options = {});
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request,
                                                    const CallOptions& options = {});

  absl::StatusOr<v1::Adapter> CreateAdapter(const v1::CreateAdapterRequest& request,
                                            const CallOptions& options = {});
  // Reads the directory's files twice (for their hashes, then to send them). If the server has the
  // very same files it answers before all are sent, and that is no error. `on_progress` may be
  // null.
  absl::StatusOr<v1::Adapter> UploadAdapter(
      const AdapterUpload& upload,
      const std::function<void(int64_t sent_bytes, int64_t total_bytes)>& on_progress,
      const CallOptions& options = {});
  absl::StatusOr<v1::Adapter> GetAdapter(const std::string& name, const CallOptions& options = {});
  // All pages, in the order of names. `options` is for each page.
  absl::StatusOr<std::vector<v1::Adapter>> ListAdapters(const AdapterFilter& filter = {},
                                                        const CallOptions& options = {});
  absl::StatusOr<v1::Adapter> UpdateAdapter(const v1::UpdateAdapterRequest& request,
                                            const CallOptions& options = {});
  // Newest first; the first is current.
  absl::StatusOr<std::vector<v1::Adapter>> ListAdapterVersions(const std::string& name,
                                                               const CallOptions& options = {});
  absl::StatusOr<v1::Adapter> RollbackAdapter(const v1::RollbackAdapterRequest& request,
                                              const CallOptions& options = {});
  // An empty `etag` deletes any state of the adapter.
  absl::Status DeleteAdapter(const std::string& name, bool allow_missing,
                             const std::string& etag = {}, const CallOptions& options = {});
  // Blocks until the watch ends. `on_event` (in this thread) returns false to end it: then the
  // result is OK. A watch that ends otherwise is an error: Unavailable if the server drains.
  absl::Status WatchAdapters(const std::map<std::string, std::string>& labels,
                             const std::function<bool(const v1::WatchAdaptersResponse&)>& on_event,
                             const CallOptions& options = {});

  absl::StatusOr<v1::Model> GetModel(const CallOptions& options = {});
  absl::StatusOr<v1::Pool> GetPool(int max_adapters, const CallOptions& options = {});
  absl::StatusOr<v1::Fit> GetFit(const v1::GetFitRequest& request, const CallOptions& options = {});
  absl::StatusOr<std::vector<v1::Tenant>> ListTenants(const CallOptions& options = {});
  absl::StatusOr<v1::Stats> GetStats(const CallOptions& options = {});
  absl::StatusOr<v1::DrainResponse> Drain(std::optional<std::chrono::milliseconds> wait,
                                          const CallOptions& options = {});
  // Whether the server (or one of its services: "lorad.v1.Inference") takes requests.
  absl::StatusOr<bool> IsServing(const std::string& service, const CallOptions& options = {});

 private:
  struct Connections;
  std::unique_ptr<Connections> connections_;
};

}  // namespace lorad
