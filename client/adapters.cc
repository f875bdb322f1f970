// The calls about adapters, except UploadAdapter (upload.cc).
#include <iterator>
#include <utility>

#include "client/client.h"
#include "client/grpc_call.h"

namespace lorad {
namespace {

constexpr int kListPageSize = 1000;

}  // namespace

absl::StatusOr<v1::Adapter> Client::CreateAdapter(const v1::CreateAdapterRequest& request,
                                                  const CallOptions& options) {
  return Unary<v1::Adapter>(connections_->adapters.get(), &v1::Adapters::Stub::CreateAdapter,
                            request, connections_->tenant, options);
}

absl::StatusOr<v1::Adapter> Client::GetAdapter(const std::string& name,
                                               const CallOptions& options) {
  v1::GetAdapterRequest request;
  request.set_name(name);
  return Unary<v1::Adapter>(connections_->adapters.get(), &v1::Adapters::Stub::GetAdapter, request,
                            connections_->tenant, options);
}

absl::StatusOr<std::vector<v1::Adapter>> Client::ListAdapters(const AdapterFilter& filter,
                                                              const CallOptions& options) {
  std::vector<v1::Adapter> adapters;
  v1::ListAdaptersRequest request;
  request.set_page_size(kListPageSize);
  request.set_state(filter.state);
  request.mutable_labels()->insert(filter.labels.begin(), filter.labels.end());
  while (true) {
    auto page = Unary<v1::ListAdaptersResponse>(connections_->adapters.get(),
                                                &v1::Adapters::Stub::ListAdapters, request,
                                                connections_->tenant, options);
    if (!page.ok()) return page.status();
    std::move(page->mutable_adapters()->begin(), page->mutable_adapters()->end(),
              std::back_inserter(adapters));
    if (page->next_page_token().empty()) return adapters;
    if (page->next_page_token() == request.page_token()) {
      return absl::InternalError("the server returned the same page twice");
    }
    request.set_page_token(page->next_page_token());
  }
}

absl::StatusOr<v1::Adapter> Client::UpdateAdapter(const v1::UpdateAdapterRequest& request,
                                                  const CallOptions& options) {
  return Unary<v1::Adapter>(connections_->adapters.get(), &v1::Adapters::Stub::UpdateAdapter,
                            request, connections_->tenant, options);
}

absl::StatusOr<std::vector<v1::Adapter>> Client::ListAdapterVersions(const std::string& name,
                                                                     const CallOptions& options) {
  v1::ListAdapterVersionsRequest request;
  request.set_name(name);
  auto response = Unary<v1::ListAdapterVersionsResponse>(connections_->adapters.get(),
                                                         &v1::Adapters::Stub::ListAdapterVersions,
                                                         request, connections_->tenant, options);
  if (!response.ok()) return response.status();
  return std::vector<v1::Adapter>(response->versions().begin(), response->versions().end());
}

absl::StatusOr<v1::Adapter> Client::RollbackAdapter(const v1::RollbackAdapterRequest& request,
                                                    const CallOptions& options) {
  return Unary<v1::Adapter>(connections_->adapters.get(), &v1::Adapters::Stub::RollbackAdapter,
                            request, connections_->tenant, options);
}

absl::Status Client::DeleteAdapter(const std::string& name, bool allow_missing,
                                   const std::string& etag, const CallOptions& options) {
  v1::DeleteAdapterRequest request;
  request.set_name(name);
  request.set_allow_missing(allow_missing);
  request.set_etag(etag);
  return Unary<google::protobuf::Empty>(connections_->adapters.get(),
                                        &v1::Adapters::Stub::DeleteAdapter, request,
                                        connections_->tenant, options)
      .status();
}

absl::Status Client::WatchAdapters(
    const std::map<std::string, std::string>& labels,
    const std::function<bool(const v1::WatchAdaptersResponse&)>& on_event,
    const CallOptions& options) {
  v1::WatchAdaptersRequest request;
  request.mutable_labels()->insert(labels.begin(), labels.end());
  grpc::ClientContext context;
  Prepare(options, connections_->tenant, &context);
  const auto reader = connections_->adapters->WatchAdapters(&context, request);
  v1::WatchAdaptersResponse event;
  bool wanted = true;
  while (wanted && reader->Read(&event)) wanted = on_event(event);
  if (!wanted) {
    context.TryCancel();
    while (reader->Read(&event)) {  // what was under way
    }
  }
  const grpc::Status status = reader->Finish();
  if (!wanted) return absl::OkStatus();
  if (status.ok()) return absl::UnavailableError("the server ended the watch");
  return FromGrpc(status);
}

}  // namespace lorad
