// Generate, blocking and not. The reactor owns everything that gRPC may touch and keeps itself
// alive until gRPC is done.
#include <condition_variable>
#include <mutex>
#include <utility>

#include "client/client.h"
#include "client/grpc_call.h"

namespace lorad {
namespace {

class GenerateReactor : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  GenerateReactor(const v1::GenerateRequest& request, GenerateCallbacks callbacks,
                  const std::string& tenant, const CallOptions& options)
      : context_(std::make_shared<grpc::ClientContext>()),
        request_(request),
        callbacks_(std::move(callbacks)) {
    Prepare(options, tenant, context_.get());
  }

  void Start(v1::Inference::Stub* stub, std::shared_ptr<GenerateReactor> self) {
    self_ = std::move(self);
    stub->async()->Generate(context_.get(), &request_, this);
    StartRead(&response_);
    StartCall();
  }

  void Cancel() {
    std::shared_ptr<grpc::ClientContext> context;
    {
      const std::lock_guard lock(mutex_);
      context = context_;
    }
    if (context) context->TryCancel();
  }

  void Wait() {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return done_; });
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;  // OnDone follows
    callbacks_.on_message(response_);
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<GenerateReactor> self = std::move(self_);
    callbacks_.on_done(FromGrpc(status));
    const std::lock_guard lock(mutex_);
    // The context holds the channel. The channel must not end in this thread, which belongs to it:
    // so let go of it before a waiter may destroy the client.
    context_.reset();
    done_ = true;
    ended_.notify_all();
  }

 private:
  std::shared_ptr<grpc::ClientContext> context_;  // guarded by mutex_ after Start; null when done
  const v1::GenerateRequest request_;
  v1::GenerateResponse response_;
  const GenerateCallbacks callbacks_;
  std::shared_ptr<GenerateReactor> self_;  // until OnDone
  std::mutex mutex_;
  std::condition_variable ended_;
  bool done_ = false;  // guarded by mutex_
};

class RunningGenerate : public GenerateCall {
 public:
  explicit RunningGenerate(std::shared_ptr<GenerateReactor> reactor)
      : reactor_(std::move(reactor)) {}
  ~RunningGenerate() override {
    reactor_->Cancel();
    reactor_->Wait();
  }
  void Cancel() override { reactor_->Cancel(); }
  void Wait() override { reactor_->Wait(); }

 private:
  const std::shared_ptr<GenerateReactor> reactor_;
};

}  // namespace

std::unique_ptr<GenerateCall> Client::GenerateAsync(const v1::GenerateRequest& request,
                                                    GenerateCallbacks callbacks,
                                                    const CallOptions& options) {
  auto reactor = std::make_shared<GenerateReactor>(request, std::move(callbacks),
                                                   connections_->tenant, options);
  reactor->Start(connections_->Next(), reactor);
  return std::make_unique<RunningGenerate>(std::move(reactor));
}

absl::StatusOr<v1::GenerateFinish> Client::Generate(
    const v1::GenerateRequest& request,
    const std::function<bool(const v1::GenerateResponse&)>& on_message,
    const CallOptions& options) {
  grpc::ClientContext context;
  Prepare(options, connections_->tenant, &context);
  const auto reader = connections_->Next()->Generate(&context, request);
  v1::GenerateResponse message;
  v1::GenerateFinish finish;
  bool finished = false;
  while (reader->Read(&message)) {
    if (message.has_finish()) {
      finish = message.finish();
      finished = true;
    }
    if (on_message && !on_message(message)) context.TryCancel();
  }
  if (const grpc::Status status = reader->Finish(); !status.ok()) return FromGrpc(status);
  if (!finished) return absl::InternalError("the stream ended without a finish message");
  return finish;
}

}  // namespace lorad
