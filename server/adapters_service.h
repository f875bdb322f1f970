// The Adapters service: create, upload, get, list, update, roll back, delete, watch. Changes, which
// do file work, happen on a WorkQueue; what is only read is answered at once. An upload that breaks
// off, is refused or lies about a checksum leaves nothing behind.
#pragma once

#include <lorad/v1/adapters.grpc.pb.h>

#include <functional>
#include <string>
#include <string_view>

#include "server/adapter_catalog.h"
#include "server/adapter_watch.h"
#include "server/engine.h"
#include "server/work_queue.h"

namespace lorad {

class AdaptersService final : public v1::Adapters::CallbackService {
 public:
  struct Parts {  // borrowed
    AdapterCatalog* catalog = nullptr;
    AdapterWatchHub* watch = nullptr;
    Engine* engine = nullptr;
    WorkQueue* work = nullptr;
    size_t page_bytes = 0;
    Duration upload_idle_timeout = std::chrono::seconds(60);  // between two messages of an upload
  };
  explicit AdaptersService(Parts parts) : parts_(parts) {}

  grpc::ServerUnaryReactor* CreateAdapter(grpc::CallbackServerContext* context,
                                          const v1::CreateAdapterRequest* request,
                                          v1::Adapter* response) override;
  grpc::ServerReadReactor<v1::UploadAdapterRequest>* UploadAdapter(
      grpc::CallbackServerContext* context, v1::Adapter* response) override;
  grpc::ServerUnaryReactor* GetAdapter(grpc::CallbackServerContext* context,
                                       const v1::GetAdapterRequest* request,
                                       v1::Adapter* response) override;
  grpc::ServerUnaryReactor* ListAdapters(grpc::CallbackServerContext* context,
                                         const v1::ListAdaptersRequest* request,
                                         v1::ListAdaptersResponse* response) override;
  grpc::ServerUnaryReactor* UpdateAdapter(grpc::CallbackServerContext* context,
                                          const v1::UpdateAdapterRequest* request,
                                          v1::Adapter* response) override;
  grpc::ServerUnaryReactor* ListAdapterVersions(grpc::CallbackServerContext* context,
                                                const v1::ListAdapterVersionsRequest* request,
                                                v1::ListAdapterVersionsResponse* response) override;
  grpc::ServerUnaryReactor* RollbackAdapter(grpc::CallbackServerContext* context,
                                            const v1::RollbackAdapterRequest* request,
                                            v1::Adapter* response) override;
  grpc::ServerUnaryReactor* DeleteAdapter(grpc::CallbackServerContext* context,
                                          const v1::DeleteAdapterRequest* request,
                                          google::protobuf::Empty* response) override;
  grpc::ServerWriteReactor<v1::WatchAdaptersResponse>* WatchAdapters(
      grpc::CallbackServerContext* context, const v1::WatchAdaptersRequest* request) override;

 private:
  using Change = std::function<absl::Status(const std::string& caller)>;
  // Runs `change` on the work queue, and answers with what it returns.
  grpc::ServerUnaryReactor* AnswerLater(grpc::CallbackServerContext* context, Change change) const;
  absl::Status List(const std::string& caller, const v1::ListAdaptersRequest& request,
                    v1::ListAdaptersResponse* response) const;

  const Parts parts_;
};

// What a change came to: `response`, or why nothing changed; and a line in the log. `what`: for the
// log ("create").
absl::Status AnswerChange(const AdaptersService::Parts& parts, std::string_view what,
                          std::string_view caller, std::string_view name,
                          const absl::StatusOr<AdapterInfo>& changed, v1::Adapter* response);

}  // namespace lorad
