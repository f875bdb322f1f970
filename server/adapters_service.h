// The Adapters service: create, upload, get, list, delete. File work happens on the WorkQueue; an
// upload that breaks off, is refused or lies about a checksum leaves nothing behind.
#pragma once

#include <lorad/v1/adapters.grpc.pb.h>

#include "server/adapter_catalog.h"
#include "server/engine.h"
#include "server/work_queue.h"

namespace lorad {

class AdaptersService final : public v1::Adapters::CallbackService {
 public:
  struct Parts {  // borrowed
    AdapterCatalog* catalog = nullptr;
    Engine* engine = nullptr;
    WorkQueue* work = nullptr;
    size_t page_bytes = 0;
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
  grpc::ServerUnaryReactor* DeleteAdapter(grpc::CallbackServerContext* context,
                                          const v1::DeleteAdapterRequest* request,
                                          google::protobuf::Empty* response) override;

 private:
  const Parts parts_;
};

}  // namespace lorad
