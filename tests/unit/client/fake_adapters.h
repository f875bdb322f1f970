// FakeAdapters: the Adapters service over a list in memory, with versions, settings, etags and
// tenants as adapters.proto says. Public members are set before the first call or read after the
// last; functions are for any time and thread.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "lorad/v1/adapters.grpc.pb.h"

namespace lorad {

class FakeAdapters : public v1::Adapters::Service {
 public:
  grpc::Status CreateAdapter(grpc::ServerContext* context, const v1::CreateAdapterRequest* request,
                             v1::Adapter* adapter) override;
  grpc::Status UploadAdapter(grpc::ServerContext* context,
                             grpc::ServerReader<v1::UploadAdapterRequest>* reader,
                             v1::Adapter* adapter) override;
  grpc::Status GetAdapter(grpc::ServerContext* context, const v1::GetAdapterRequest* request,
                          v1::Adapter* adapter) override;
  grpc::Status ListAdapters(grpc::ServerContext*, const v1::ListAdaptersRequest* request,
                            v1::ListAdaptersResponse* response) override;
  grpc::Status UpdateAdapter(grpc::ServerContext* context, const v1::UpdateAdapterRequest* request,
                             v1::Adapter* adapter) override;
  grpc::Status ListAdapterVersions(grpc::ServerContext* context,
                                   const v1::ListAdapterVersionsRequest* request,
                                   v1::ListAdapterVersionsResponse* response) override;
  grpc::Status RollbackAdapter(grpc::ServerContext* context,
                               const v1::RollbackAdapterRequest* request,
                               v1::Adapter* adapter) override;
  grpc::Status DeleteAdapter(grpc::ServerContext* context, const v1::DeleteAdapterRequest* request,
                             google::protobuf::Empty*) override;
  // Sends `events`, then ends with `watch_end`, or waits for the client to cancel if that is OK.
  grpc::Status WatchAdapters(grpc::ServerContext* context, const v1::WatchAdaptersRequest* request,
                             grpc::ServerWriter<v1::WatchAdaptersResponse>* writer) override;

  std::vector<v1::Adapter> adapters;
  int page = 2;                                // adapters in a page, whatever is asked for
  int refuse_after_chunks = -1;                // of an upload
  std::map<std::string, grpc::Status> errors;  // what a method answers, by its name
  // Called before a change is looked at, with its method: what somebody else does just then.
  std::function<void(const std::string& method)> before_change;
  std::function<grpc::Status()> before_list;  // not OK: the answer to ListAdapters
  std::vector<v1::WatchAdaptersResponse> events;
  grpc::Status watch_end;

  // What UploadAdapter and WatchAdapters saw last.
  v1::UploadHeader header;
  std::vector<std::string> files;  // contents, by index
  std::vector<size_t> chunk_bytes;
  bool in_order = true;
  v1::WatchAdaptersRequest watched;

  // An adapter of these files, version 1.
  void Seed(const std::string& name, const v1::AdapterSettings& settings,
            const std::string& config_sha256, const std::string& sha256);
  std::optional<v1::Adapter> Find(const std::string& name) const;
  // Changes an adapter as another client would: its etag changes too.
  void Change(const std::string& name, const std::function<void(v1::Adapter*)>& change);
  void Remove(const std::string& name);
  // The changes that were asked for and done: "UploadAdapter adapters/foo".
  std::vector<std::string> changes() const;

 private:
  grpc::Status Begin(const std::string& method);
  // Null if there is none. REQUIRES: mutex_ held.
  v1::Adapter* Lookup(const grpc::ServerContext& context, const std::string& name);
  grpc::Status CheckEtag(const v1::Adapter& adapter, const std::string& etag) const;
  // Makes `adapter` the current version of `name`. REQUIRES: mutex_ held.
  v1::Adapter* Put(const std::string& name, const v1::Adapter& adapter);
  void NewEtag(v1::Adapter* adapter);

  mutable std::mutex mutex_;  // guards what follows, and `adapters` once the server answers calls
  std::map<std::string, std::vector<v1::Adapter>> versions_;  // replaced ones, oldest first
  std::vector<std::string> changes_;
  int etags_ = 0;
};

}  // namespace lorad
