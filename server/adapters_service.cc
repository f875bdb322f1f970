#include "server/adapters_service.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "server/reply.h"
#include "server/request_parsing.h"
#include "server/status_conversion.h"

namespace lorad {
namespace {

constexpr int kDefaultPageSize = 100;
constexpr int kMaxPageSize = 1000;

v1::Adapter::State WireState(AdapterState state) {
  switch (state) {
    case AdapterState::kResident:
      return v1::Adapter::RESIDENT;
    case AdapterState::kLoading:
      return v1::Adapter::LOADING;
    default:
      return v1::Adapter::STORED;
  }
}

// `holding`: what the engine says of it, or null if it holds no pages.
void FillAdapter(const AdapterVersion& version, const EngineSnapshot::Adapter* holding,
                 size_t page_bytes, v1::Adapter* out) {
  out->set_name("adapters/" + version.name);
  out->set_version(version.version);
  out->set_state(v1::Adapter::STORED);
  out->set_rank(version.max_rank);
  for (int rank : version.ranks) out->add_ranks(rank);
  for (const std::string& module : version.target_modules) out->add_target_modules(module);
  out->set_alpha(version.alpha);
  out->set_base_model(version.base_model);
  out->set_size_bytes(version.file_bytes);
  out->set_sha256(version.sha256);
  SetTimestamp(version.create_time, out->mutable_create_time());
  const int64_t last = version.activity->last_unix_ms.load();
  if (last != 0) {
    const std::chrono::system_clock::time_point time{std::chrono::milliseconds(last)};
    SetTimestamp(time, out->mutable_last_use_time());
  }
  out->set_total_requests(version.activity->requests.load());
  if (holding == nullptr) return;
  out->set_state(WireState(holding->state));
  out->set_resident_pages(holding->pages);
  out->set_resident_bytes(static_cast<int64_t>(holding->pages * page_bytes));
  out->set_active_requests(holding->running + holding->waiting);
}

const EngineSnapshot::Adapter* FindHolding(const EngineSnapshot& snapshot, AdapterVersionId id) {
  for (const auto& adapter : snapshot.adapters) {
    if (adapter.id == id) return &adapter;
  }
  return nullptr;
}

using Created = absl::StatusOr<std::shared_ptr<const AdapterVersion>>;

absl::Status Answer(const AdaptersService::Parts& parts, const Created& created, bool preload,
                    v1::Adapter* response) {
  if (!created.ok()) return created.status();
  if (preload) parts.engine->Preload(*created);
  FillAdapter(**created, nullptr, parts.page_bytes, response);
  return absl::OkStatus();
}

// One UploadAdapter call. One read is in flight at a time, so its members need no lock.
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
    const absl::Status status = header_.has_value() ? TakeChunk() : TakeHeader();
    if (!status.ok()) {
      staged_.reset();
      Finish(ToGrpcStatus(status));
      return;
    }
    StartRead(&message_);
  }

  void OnDone() override { delete this; }

 private:
  absl::Status TakeHeader() {
    if (!message_.has_header()) return InvalidField("header", "must be the first message");
    header_ = message_.header();
    LORAD_RETURN_IF_ERROR(
        parts_.catalog->CheckCreatable(header_->adapter_id(), header_->replace()));
    std::vector<DeclaredFile> files;
    for (const v1::UploadFile& file : header_->files()) {
      files.push_back({.name = file.name(), .bytes = file.size_bytes(), .sha256 = file.sha256()});
    }
    LORAD_ASSIGN_OR_RETURN(staged_, parts_.catalog->store().Begin(files));
    return absl::OkStatus();
  }

  absl::Status TakeChunk() {
    if (!message_.has_chunk()) return InvalidField("chunk", "must follow the header");
    const v1::UploadChunk& chunk = message_.chunk();
    return staged_->Write(chunk.file_index(), chunk.offset(), chunk.data());
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
      const Created created =
          parts_.catalog->Commit(std::move(*staged_), header_->adapter_id(), header_->replace());
      Finish(ToGrpcStatus(Answer(parts_, created, header_->preload(), response_)));
    });
  }

  const AdaptersService::Parts& parts_;
  grpc::CallbackServerContext* const context_;
  v1::Adapter* const response_;
  v1::UploadAdapterRequest message_;
  std::optional<v1::UploadHeader> header_;
  std::optional<StagedAdapter> staged_;
};

}  // namespace

grpc::ServerUnaryReactor* AdaptersService::CreateAdapter(grpc::CallbackServerContext* context,
                                                         const v1::CreateAdapterRequest* request,
                                                         v1::Adapter* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts_.work->Post([this, reactor, request, response] {
    const Created created =
        parts_.catalog->CreateFromPath(request->path(), request->adapter_id(), request->replace());
    reactor->Finish(ToGrpcStatus(Answer(parts_, created, request->preload(), response)));
  });
  return reactor;
}

grpc::ServerReadReactor<v1::UploadAdapterRequest>* AdaptersService::UploadAdapter(
    grpc::CallbackServerContext* context, v1::Adapter* response) {
  return new UploadCall(parts_, context, response);
}

grpc::ServerUnaryReactor* AdaptersService::GetAdapter(grpc::CallbackServerContext* context,
                                                      const v1::GetAdapterRequest* request,
                                                      v1::Adapter* response) {
  const auto version = parts_.catalog->Resolve(AdapterIdOf(request->name()));
  if (!version.ok()) return FinishNow(context, version.status());
  const EngineSnapshot snapshot = parts_.engine->Snapshot();
  FillAdapter(**version, FindHolding(snapshot, (*version)->id), parts_.page_bytes, response);
  return FinishNow(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* AdaptersService::ListAdapters(grpc::CallbackServerContext* context,
                                                        const v1::ListAdaptersRequest* request,
                                                        v1::ListAdaptersResponse* response) {
  if (request->page_size() < 0 || request->page_size() > kMaxPageSize) {
    return FinishNow(context,
                     InvalidField("page_size", fmt::format("must be in [0, {}]", kMaxPageSize)));
  }
  const int size = request->page_size() == 0 ? kDefaultPageSize : request->page_size();
  const EngineSnapshot snapshot = parts_.engine->Snapshot();
  absl::flat_hash_map<AdapterVersionId, const EngineSnapshot::Adapter*> holding;
  for (const auto& adapter : snapshot.adapters) holding[adapter.id] = &adapter;

  int total = 0;
  for (const auto& version :
       parts_.catalog->List()) {  // by name: a page token is the last name given
    const auto held = holding.find(version->id);
    const auto* h = held == holding.end() ? nullptr : held->second;
    const v1::Adapter::State state = h == nullptr ? v1::Adapter::STORED : WireState(h->state);
    if (request->state() != v1::Adapter::STATE_UNSPECIFIED && request->state() != state) continue;
    ++total;
    if (version->name <= request->page_token() && !request->page_token().empty()) continue;
    if (response->adapters_size() == size) {
      response->set_next_page_token(
          AdapterIdOf(response->adapters(response->adapters_size() - 1).name()));
      continue;
    }
    FillAdapter(*version, h, parts_.page_bytes, response->add_adapters());
  }
  response->set_total_size(total);
  return FinishNow(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* AdaptersService::DeleteAdapter(grpc::CallbackServerContext* context,
                                                         const v1::DeleteAdapterRequest* request,
                                                         google::protobuf::Empty*) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts_.work->Post([this, reactor, request] {
    absl::Status status = parts_.catalog->Delete(AdapterIdOf(request->name()));
    if (request->allow_missing() && absl::IsNotFound(status)) status = absl::OkStatus();
    reactor->Finish(ToGrpcStatus(status));
  });
  return reactor;
}

}  // namespace lorad
