#include "server/upload_call.h"

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

// One read is in flight at a time, so its members need no lock.
class UploadCall final : public grpc::ServerReadReactor<v1::UploadAdapterRequest> {
 public:
  UploadCall(const AdaptersService::Parts& parts, grpc::CallbackServerContext* context,
             v1::Adapter* response)
      : parts_(parts), context_(context), response_(response) {
    StartRead(&message_);
  }

  void OnReadDone(bool ok) override {
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
      StartRead(&message_);
    }
  }

  void OnDone() override { delete this; }

 private:
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
};

}  // namespace

grpc::ServerReadReactor<v1::UploadAdapterRequest>* NewUploadCall(
    const AdaptersService::Parts& parts, grpc::CallbackServerContext* context,
    v1::Adapter* response) {
  return new UploadCall(parts, context, response);
}

}  // namespace lorad
