#include "server/upload_call.h"

#include <fmt/format.h>
#include <grpcpp/alarm.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "server/adapter_reply.h"
#include "server/caller.h"
#include "server/status_conversion.h"

namespace lorad {
namespace {

absl::Status Stalled(Duration patience) {
  return WithReason(absl::DeadlineExceededError(fmt::format(
                        "nothing of the upload arrived for {:g} seconds", Seconds(patience))),
                    "UPLOAD_STALLED");
}

// One read is in flight at a time, so its members need no lock but those that the alarm looks at.
class UploadCall final : public grpc::ServerReadReactor<v1::UploadAdapterRequest> {
 public:
  UploadCall(const AdaptersService::Parts& parts, grpc::CallbackServerContext* context,
             v1::Adapter* response)
      : parts_(parts),
        context_(context),
        response_(response),
        patience_(std::make_shared<Patience>()) {
    patience_->call = this;
    ReadOn();
    patience_->WaitFor(parts.upload_idle_timeout);
  }

  void OnReadDone(bool ok) override {
    if (!patience_->StopWaiting()) return;  // the client was given up
    if (!ok) {
      CommitOnWorkQueue();
      return;
    }
    const absl::Status status = wanted_.has_value() ? TakeChunk() : TakeHeader();
    if (!status.ok()) {
      staged_.reset();
      Finish(ToGrpcStatus(AnswerChange(parts_, "upload", caller_, name_, status, response_)));
    } else if (!staged_.has_value()) {
      TakeStoredOnWorkQueue();
    } else {
      ReadOn();
    }
  }

  void OnDone() override {
    patience_->End();
    delete this;
  }

 private:
  // How long the client may be silent. Shared with the alarm, which may ring after the call's end.
  struct Patience : std::enable_shared_from_this<Patience> {
    std::mutex mutex;
    UploadCall* call = nullptr;                   // guarded by mutex; null: it is over
    bool waiting = false;                         // guarded by mutex: a message is expected
    bool given_up = false;                        // guarded by mutex: the alarm ends the call
    std::chrono::steady_clock::time_point since;  // guarded by mutex: it is expected
    grpc::Alarm alarm;                            // guarded by mutex

    void StartWaiting() {
      const std::lock_guard lock(mutex);
      waiting = true;
      since = std::chrono::steady_clock::now();
    }
    // False: it was too late.
    bool StopWaiting() {
      const std::lock_guard lock(mutex);
      waiting = false;
      return !given_up;
    }
    void End() {
      const std::lock_guard lock(mutex);
      call = nullptr;
      alarm.Cancel();
    }
    void WaitFor(Duration patience) {
      const std::lock_guard lock(mutex);
      Arm(patience, patience);
    }

   private:
    // REQUIRES: mutex is held.
    void Arm(Duration left, Duration patience) {
      alarm.Set(std::chrono::system_clock::now() + left,
                [self = shared_from_this(), patience](bool ok) {
                  if (ok) self->Ring(patience);
                });
    }
    void Ring(Duration patience) {
      UploadCall* stalled = nullptr;
      {
        const std::lock_guard lock(mutex);
        if (call == nullptr) return;
        const auto silent = waiting ? std::chrono::steady_clock::now() - since : Duration{};
        if (silent < patience) {
          Arm(patience - silent, patience);
          return;
        }
        given_up = true;
        stalled = call;
      }
      // It lives: nobody but us ends it any more.
      stalled->Finish(
          ToGrpcStatus(AnswerChange(stalled->parts_, "upload", stalled->caller_, stalled->name_,
                                    Stalled(patience), stalled->response_)));
    }
  };

  void ReadOn() {
    patience_->StartWaiting();
    StartRead(&message_);
  }

  absl::Status TakeHeader() {
    LORAD_ASSIGN_OR_RETURN(caller_, CallerOf(*context_));
    if (!message_.has_header()) return InvalidField("header", "must be the first message");
    const v1::UploadHeader& header = message_.header();
    name_ = header.adapter_id();
    preload_ = header.preload();
    NewAdapter wanted{.replace = header.replace(), .etag = header.etag()};
    LORAD_ASSIGN_OR_RETURN(wanted.id, AdapterCatalog::IdForCreate(caller_, header.adapter_id()));
    if (header.has_settings()) {
      LORAD_ASSIGN_OR_RETURN(wanted.settings, SettingsOf(header.settings()));
    }
    for (const v1::UploadFile& file : header.files()) {
      files_.push_back({.name = file.name(), .bytes = file.size_bytes(), .sha256 = file.sha256()});
    }
    wanted_ = std::move(wanted);
    LORAD_RETURN_IF_ERROR(parts_.catalog->CheckCreatable(*wanted_, files_));
    if (parts_.catalog->HasFiles(wanted_->id, files_)) return absl::OkStatus();
    LORAD_ASSIGN_OR_RETURN(staged_, parts_.catalog->store().Begin(files_));
    return absl::OkStatus();
  }

  absl::Status TakeChunk() {
    if (!message_.has_chunk()) return InvalidField("chunk", "must follow the header");
    const v1::UploadChunk& chunk = message_.chunk();
    return staged_->Write(chunk.file_index(), chunk.offset(), chunk.data());
  }

  void TakeStoredOnWorkQueue() {
    parts_.work->Post([this] { Answer(parts_.catalog->TakeStored(*wanted_, files_)); });
  }

  void CommitOnWorkQueue() {
    if (!staged_.has_value()) {
      Finish(ToGrpcStatus(InvalidField("header", "the upload ended before its header")));
      return;
    }
    parts_.work->Post([this] {
      // Reads end alike when the client is done and when it is gone; only what it finished is kept.
      if (context_->IsCancelled()) {
        staged_.reset();
        Finish(grpc::Status::CANCELLED);
        return;
      }
      Answer(parts_.catalog->Commit(std::move(*staged_), *wanted_));
    });
  }

  void Answer(const absl::StatusOr<AdapterInfo>& stored) {
    if (stored.ok() && preload_) parts_.engine->Preload(stored->version);
    Finish(ToGrpcStatus(AnswerChange(parts_, "upload", caller_, name_, stored, response_)));
  }

  const AdaptersService::Parts& parts_;
  grpc::CallbackServerContext* const context_;
  v1::Adapter* const response_;
  v1::UploadAdapterRequest message_;
  std::string caller_;
  std::string name_;                  // as the client gave it
  std::optional<NewAdapter> wanted_;  // once the header was read
  std::vector<DeclaredFile> files_;
  bool preload_ = false;
  std::optional<StagedAdapter> staged_;  // if the files are wanted
  const std::shared_ptr<Patience> patience_;
};

}  // namespace

grpc::ServerReadReactor<v1::UploadAdapterRequest>* NewUploadCall(
    const AdaptersService::Parts& parts, grpc::CallbackServerContext* context,
    v1::Adapter* response) {
  return new UploadCall(parts, context, response);
}

}  // namespace lorad
