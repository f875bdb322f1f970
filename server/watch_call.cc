#include "server/watch_call.h"

#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "memory/base/status_macros.h"
#include "server/adapter_reply.h"
#include "server/caller.h"
#include "server/status_conversion.h"

namespace lorad {
namespace {

v1::WatchAdaptersResponse::Type WireType(WatchEvent::Kind kind) {
  switch (kind) {
    case WatchEvent::kInitial:
      return v1::WatchAdaptersResponse::INITIAL;
    case WatchEvent::kSynced:
      return v1::WatchAdaptersResponse::SYNCED;
    case WatchEvent::kChanged:
      return v1::WatchAdaptersResponse::CHANGED;
    case WatchEvent::kDeleted:
      return v1::WatchAdaptersResponse::DELETED;
  }
  return v1::WatchAdaptersResponse::TYPE_UNSPECIFIED;
}

// Lives until OnDone; the watcher's listener holds it too, so a late notification finds it alive.
class WatchCall final : public grpc::ServerWriteReactor<v1::WatchAdaptersResponse>,
                        public std::enable_shared_from_this<WatchCall> {
 public:
  static WatchCall* Start(const AdaptersService::Parts& parts, grpc::CallbackServerContext* context,
                          const v1::WatchAdaptersRequest* request) {
    auto call = std::make_shared<WatchCall>(parts);
    call->self_ = call;
    const absl::Status status = call->Begin(*context, *request);
    if (status.ok()) {
      call->Pump();
    } else {
      call->Finish(ToGrpcStatus(status));
    }
    return call.get();
  }

  explicit WatchCall(const AdaptersService::Parts& parts) : parts_(parts) {}

  void OnWriteDone(bool ok) override {
    {
      const std::lock_guard lock(mutex_);
      writing_ = false;
      cancelled_ |= !ok;
    }
    Pump();
  }

  void OnCancel() override {
    {
      const std::lock_guard lock(mutex_);
      cancelled_ = true;
    }
    Pump();
  }

  void OnDone() override {
    if (watcher_ != nullptr) parts_.watch->Remove(watcher_);
    self_.reset();
  }

 private:
  absl::Status Begin(const grpc::CallbackServerContext& context,
                     const v1::WatchAdaptersRequest& request) {
    LORAD_ASSIGN_OR_RETURN(std::string caller, CallerOf(context));
    LORAD_ASSIGN_OR_RETURN(watcher_, parts_.watch->Add(caller));
    {
      const std::lock_guard lock(mutex_);
      feed_.emplace(parts_.catalog, watcher_, std::move(caller), LabelsOf(request.labels()));
    }
    watcher_->SetListener([self = shared_from_this()] { self->Pump(); });
    return absl::OkStatus();
  }

  // Writes what comes next, unless a write is in flight or there is nothing.
  void Pump() {
    std::optional<grpc::Status> end;
    {
      const std::lock_guard lock(mutex_);
      if (writing_ || finished_ || !feed_.has_value()) return;
      if (cancelled_) {
        end = grpc::Status::CANCELLED;
      } else if (watcher_->closed()) {
        end = ToGrpcStatus(ShuttingDownStatus());
      } else if (const auto event = feed_->Next(); event.has_value()) {
        Fill(*event);
        writing_ = true;
      } else {
        return;
      }
      finished_ = end.has_value();
    }
    if (end.has_value()) {
      Finish(*end);
    } else {
      StartWrite(&message_);
    }
  }

  void Fill(const WatchEvent& event) {
    message_.Clear();
    message_.set_type(WireType(event.kind));
    if (event.info.has_value()) {
      FillAdapter(*event.info, parts_.page_bytes, message_.mutable_adapter());
    } else if (event.kind == WatchEvent::kDeleted) {
      message_.mutable_adapter()->set_name("adapters/" + event.id);
    }
  }

  const AdaptersService::Parts& parts_;
  std::shared_ptr<WatchCall> self_;                    // until OnDone
  std::shared_ptr<AdapterWatchHub::Watcher> watcher_;  // null: the call was refused

  std::mutex mutex_;
  std::optional<AdapterFeed> feed_;    // guarded by mutex_
  bool writing_ = false;               // guarded by mutex_
  bool cancelled_ = false;             // guarded by mutex_
  bool finished_ = false;              // guarded by mutex_
  v1::WatchAdaptersResponse message_;  // belongs to the write in flight, else guarded by mutex_
};

}  // namespace

grpc::ServerWriteReactor<v1::WatchAdaptersResponse>* NewWatchCall(
    const AdaptersService::Parts& parts, grpc::CallbackServerContext* context,
    const v1::WatchAdaptersRequest* request) {
  return WatchCall::Start(parts, context, request);
}

}  // namespace lorad
