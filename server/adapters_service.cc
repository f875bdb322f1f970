#include "server/adapters_service.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "server/adapter_reply.h"
#include "server/caller.h"
#include "server/log.h"
#include "server/reply.h"
#include "server/status_conversion.h"
#include "server/upload_call.h"
#include "server/watch_call.h"

namespace lorad {
namespace {

constexpr int kDefaultPageSize = 100;
constexpr int kMaxPageSize = 1000;
constexpr size_t kScan = 128;  // adapters that are looked at under one hold of the catalog's lock

// What a list leaves out.
struct Filter {
  v1::Adapter::State state = v1::Adapter::STATE_UNSPECIFIED;
  std::map<std::string, std::string> labels;

  bool empty() const { return state == v1::Adapter::STATE_UNSPECIFIED && labels.empty(); }
  bool Passes(const AdapterInfo& info) const {
    if (state != v1::Adapter::STATE_UNSPECIFIED &&
        state != WireState(info.version->activity->state.load())) {
      return false;
    }
    return info.settings->HasLabels(labels);
  }
};

absl::StatusOr<NewAdapter> NewAdapterOf(const std::string& caller,
                                        const v1::CreateAdapterRequest& request) {
  NewAdapter wanted{.replace = request.replace(), .etag = request.etag()};
  LORAD_ASSIGN_OR_RETURN(wanted.id, AdapterCatalog::IdForCreate(caller, request.adapter_id()));
  if (request.has_settings()) {
    LORAD_ASSIGN_OR_RETURN(wanted.settings, SettingsOf(request.settings()));
  }
  return wanted;
}

}  // namespace

absl::Status AnswerChange(const AdaptersService::Parts& parts, std::string_view what,
                          std::string_view caller, std::string_view name,
                          const absl::StatusOr<AdapterInfo>& changed, v1::Adapter* response) {
  Log(LogLevel::kInfo, "adapter change",
      {{"what", what},
       {"tenant", caller},
       {"adapter", changed.ok() ? std::string_view(changed->id()) : name},
       {"adapter_version", changed.ok() ? changed->current_version : 0},
       {"etag", changed.ok() ? changed->etag() : std::string()},
       {"status", absl::StatusCodeToString(changed.status().code())},
       {"reason", changed.ok() ? std::string() : GetErrorDetail(changed.status()).reason}});
  if (!changed.ok()) return changed.status();
  FillAdapter(*changed, parts.page_bytes, response);
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* AdaptersService::AnswerLater(grpc::CallbackServerContext* context,
                                                       Change change) const {
  auto caller = CallerOf(*context);
  if (!caller.ok()) return FinishNow(context, caller.status());
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts_.work->Post([reactor, caller = *std::move(caller), change = std::move(change)] {
    reactor->Finish(ToGrpcStatus(change(caller)));
  });
  return reactor;
}

grpc::ServerUnaryReactor* AdaptersService::CreateAdapter(grpc::CallbackServerContext* context,
                                                         const v1::CreateAdapterRequest* request,
                                                         v1::Adapter* response) {
  return AnswerLater(context, [this, request, response](const std::string& caller) -> absl::Status {
    const auto create = [&]() -> absl::StatusOr<AdapterInfo> {
      LORAD_ASSIGN_OR_RETURN(const NewAdapter wanted, NewAdapterOf(caller, *request));
      return parts_.catalog->CreateFromPath(request->path(), wanted);
    };
    const absl::StatusOr<AdapterInfo> created = create();
    if (created.ok() && request->preload()) parts_.engine->Preload(created->version);
    return AnswerChange(parts_, "create", caller, request->adapter_id(), created, response);
  });
}

grpc::ServerReadReactor<v1::UploadAdapterRequest>* AdaptersService::UploadAdapter(
    grpc::CallbackServerContext* context, v1::Adapter* response) {
  return NewUploadCall(parts_, context, response);
}

grpc::ServerUnaryReactor* AdaptersService::GetAdapter(grpc::CallbackServerContext* context,
                                                      const v1::GetAdapterRequest* request,
                                                      v1::Adapter* response) {
  const auto caller = CallerOf(*context);
  if (!caller.ok()) return FinishNow(context, caller.status());
  const auto info = parts_.catalog->Get(*caller, request->name());
  if (info.ok()) FillAdapter(*info, parts_.page_bytes, response);
  return FinishNow(context, info.status());
}

absl::Status AdaptersService::List(const std::string& caller,
                                   const v1::ListAdaptersRequest& request,
                                   v1::ListAdaptersResponse* response) const {
  if (request.page_size() < 0 || request.page_size() > kMaxPageSize) {
    return InvalidField("page_size", fmt::format("must be in [0, {}]", kMaxPageSize));
  }
  const int size = request.page_size() == 0 ? kDefaultPageSize : request.page_size();
  const Filter filter{.state = request.state(), .labels = LabelsOf(request.labels())};
  // A page token is the last id of the page before. With a filter all adapters are looked at, to
  // count those that pass.
  std::string after = filter.empty() ? request.page_token() : std::string();
  int total = 0;
  std::string last, next_page;
  while (filter.empty() ? next_page.empty() : true) {
    const std::vector<AdapterInfo> some = parts_.catalog->List(caller, after, kScan);
    if (some.empty()) break;
    after = some.back().id();
    for (const AdapterInfo& info : some) {
      if (!filter.Passes(info)) continue;
      ++total;
      if (info.id() <= request.page_token()) continue;
      if (response->adapters_size() == size) {
        next_page = last;
      } else {
        FillAdapter(info, parts_.page_bytes, response->add_adapters());
        last = info.id();
      }
    }
  }
  response->set_next_page_token(next_page);
  response->set_total_size(filter.empty() ? parts_.catalog->Count(caller) : total);
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* AdaptersService::ListAdapters(grpc::CallbackServerContext* context,
                                                        const v1::ListAdaptersRequest* request,
                                                        v1::ListAdaptersResponse* response) {
  const auto caller = CallerOf(*context);
  if (!caller.ok()) return FinishNow(context, caller.status());
  return FinishNow(context, List(*caller, *request, response));
}

grpc::ServerUnaryReactor* AdaptersService::UpdateAdapter(grpc::CallbackServerContext* context,
                                                         const v1::UpdateAdapterRequest* request,
                                                         v1::Adapter* response) {
  return AnswerLater(context, [this, request, response](const std::string& caller) -> absl::Status {
    const auto update = [&]() -> absl::StatusOr<AdapterInfo> {
      LORAD_ASSIGN_OR_RETURN(const SettingsMask mask, MaskOf(request->update_mask()));
      LORAD_ASSIGN_OR_RETURN(const AdapterSettings settings, SettingsOf(request->settings()));
      return parts_.catalog->Update(caller, request->name(), settings, mask, request->etag());
    };
    return AnswerChange(parts_, "update", caller, request->name(), update(), response);
  });
}

grpc::ServerUnaryReactor* AdaptersService::ListAdapterVersions(
    grpc::CallbackServerContext* context, const v1::ListAdapterVersionsRequest* request,
    v1::ListAdapterVersionsResponse* response) {
  const auto caller = CallerOf(*context);
  if (!caller.ok()) return FinishNow(context, caller.status());
  const auto versions = parts_.catalog->Versions(*caller, request->name());
  if (!versions.ok()) return FinishNow(context, versions.status());
  for (const AdapterInfo& info : *versions) {
    FillAdapter(info, parts_.page_bytes, response->add_versions());
  }
  return FinishNow(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* AdaptersService::RollbackAdapter(
    grpc::CallbackServerContext* context, const v1::RollbackAdapterRequest* request,
    v1::Adapter* response) {
  return AnswerLater(context, [this, request, response](const std::string& caller) {
    const auto rolled_back =
        parts_.catalog->Rollback(caller, request->name(), request->version(), request->etag());
    return AnswerChange(parts_, "rollback", caller, request->name(), rolled_back, response);
  });
}

grpc::ServerUnaryReactor* AdaptersService::DeleteAdapter(grpc::CallbackServerContext* context,
                                                         const v1::DeleteAdapterRequest* request,
                                                         google::protobuf::Empty*) {
  return AnswerLater(context, [this, request](const std::string& caller) -> absl::Status {
    const auto deleted = parts_.catalog->Delete(caller, request->name(), request->etag());
    Log(LogLevel::kInfo, "adapter change",
        {{"what", "delete"},
         {"tenant", caller},
         {"adapter", deleted.ok() ? *deleted : request->name()},
         {"status", absl::StatusCodeToString(deleted.status().code())}});
    if (request->allow_missing() && absl::IsNotFound(deleted.status())) return absl::OkStatus();
    return deleted.status();
  });
}

grpc::ServerWriteReactor<v1::WatchAdaptersResponse>* AdaptersService::WatchAdapters(
    grpc::CallbackServerContext* context, const v1::WatchAdaptersRequest* request) {
  return NewWatchCall(parts_, context, request);
}

}  // namespace lorad
