#include "tests/unit/client/fake_adapters.h"

#include <fmt/format.h>
#include <grpcpp/server_context.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "tests/unit/client/fake_server.h"

namespace lorad {
namespace {

std::string TenantOf(const grpc::ServerContext& context) {
  const auto it = context.client_metadata().find("x-lorad-tenant");
  return it == context.client_metadata().end() ? std::string()
                                               : std::string(it->second.data(), it->second.size());
}

// The name of what a call creates as `id`.
std::string NewName(const grpc::ServerContext& context, const std::string& id) {
  const std::string tenant = TenantOf(context);
  return tenant.empty() ? "adapters/" + id : fmt::format("adapters/{}/{}", tenant, id);
}

grpc::Status NotFound() {
  return RichError(grpc::StatusCode::NOT_FOUND, "no such adapter", "name", "ADAPTER_NOT_FOUND", 0);
}

grpc::Status Exists() {
  return RichError(grpc::StatusCode::ALREADY_EXISTS, "it exists", "", "ADAPTER_EXISTS", 0);
}

template <typename Labels>
bool HasLabels(const v1::Adapter& adapter, const Labels& labels) {
  const auto& own = adapter.settings().labels();
  return std::all_of(labels.begin(), labels.end(), [&own](const auto& label) {
    const auto it = own.find(label.first);
    return it != own.end() && it->second == label.second;
  });
}

}  // namespace

grpc::Status FakeAdapters::Begin(const std::string& method) {
  if (before_change) before_change(method);
  const auto error = errors.find(method);
  return error == errors.end() ? grpc::Status::OK : error->second;
}

v1::Adapter* FakeAdapters::Lookup(const grpc::ServerContext& context, const std::string& name) {
  for (const std::string& candidate : {NewName(context, name), "adapters/" + name, name}) {
    for (v1::Adapter& adapter : adapters) {
      if (adapter.name() == candidate) return &adapter;
    }
  }
  for (v1::Adapter& adapter : adapters) {
    const auto& aliases = adapter.settings().aliases();
    for (const std::string& alias : aliases) {
      if (name == alias || name == "adapters/" + alias) return &adapter;
    }
  }
  return nullptr;
}

grpc::Status FakeAdapters::CheckEtag(const v1::Adapter& adapter, const std::string& etag) const {
  if (etag.empty() || etag == adapter.etag()) return grpc::Status::OK;
  return RichError(grpc::StatusCode::ABORTED, "it has changed", "etag", "ETAG_MISMATCH", 0);
}

void FakeAdapters::NewEtag(v1::Adapter* adapter) {
  adapter->set_etag(fmt::format("e{}", ++etags_));
}

v1::Adapter* FakeAdapters::Put(const std::string& name, const v1::Adapter& adapter) {
  auto it = std::find_if(adapters.begin(), adapters.end(),
                         [&name](const v1::Adapter& a) { return a.name() == name; });
  const int64_t version = it == adapters.end() ? 1 : it->version() + 1;
  if (it == adapters.end()) {
    it = adapters.emplace(adapters.end());
  } else {
    versions_[name].push_back(*it);
  }
  *it = adapter;
  it->set_name(name);
  it->set_version(version);
  NewEtag(&*it);
  return &*it;
}

void FakeAdapters::Seed(const std::string& name, const v1::AdapterSettings& settings,
                        const std::string& config_sha256, const std::string& sha256) {
  const std::lock_guard lock(mutex_);
  v1::Adapter adapter;
  *adapter.mutable_settings() = settings;
  adapter.set_config_sha256(config_sha256);
  adapter.set_sha256(sha256);
  Put(name, adapter);
}

std::optional<v1::Adapter> FakeAdapters::Find(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  for (const v1::Adapter& adapter : adapters) {
    if (adapter.name() == name) return adapter;
  }
  return std::nullopt;
}

void FakeAdapters::Change(const std::string& name,
                          const std::function<void(v1::Adapter*)>& change) {
  const std::lock_guard lock(mutex_);
  for (v1::Adapter& adapter : adapters) {
    if (adapter.name() != name) continue;
    change(&adapter);
    NewEtag(&adapter);
  }
}

void FakeAdapters::Remove(const std::string& name) {
  const std::lock_guard lock(mutex_);
  std::erase_if(adapters, [&name](const v1::Adapter& a) { return a.name() == name; });
}

std::vector<std::string> FakeAdapters::changes() const {
  const std::lock_guard lock(mutex_);
  return changes_;
}

grpc::Status FakeAdapters::CreateAdapter(grpc::ServerContext* context,
                                         const v1::CreateAdapterRequest* request,
                                         v1::Adapter* adapter) {
  if (const grpc::Status status = Begin("CreateAdapter"); !status.ok()) return status;
  const std::lock_guard lock(mutex_);
  const std::string name = NewName(*context, request->adapter_id());
  const v1::Adapter* old = Lookup(*context, name);
  if (old != nullptr && !request->replace()) return Exists();
  v1::Adapter made;
  if (old != nullptr) *made.mutable_settings() = old->settings();
  if (request->has_settings()) *made.mutable_settings() = request->settings();
  *adapter = *Put(name, made);
  changes_.push_back("CreateAdapter " + name);
  return grpc::Status::OK;
}

grpc::Status FakeAdapters::UploadAdapter(grpc::ServerContext* context,
                                         grpc::ServerReader<v1::UploadAdapterRequest>* reader,
                                         v1::Adapter* adapter) {
  v1::UploadAdapterRequest message;
  if (!reader->Read(&message) || !message.has_header()) {
    return RichError(grpc::StatusCode::INVALID_ARGUMENT, "no header", "header", "INVALID_FIELD", 0);
  }
  if (const grpc::Status status = Begin("UploadAdapter"); !status.ok()) return status;
  header = message.header();
  v1::Adapter made;
  made.set_config_sha256(header.files(0).sha256());
  made.set_sha256(header.files(1).sha256());
  *made.mutable_settings() = header.settings();
  const std::string name = NewName(*context, header.adapter_id());
  {
    const std::lock_guard lock(mutex_);
    v1::Adapter* old = Lookup(*context, name);
    if (old == nullptr && !header.etag().empty()) return NotFound();
    if (old != nullptr) {
      if (const grpc::Status s = CheckEtag(*old, header.etag()); !s.ok()) return s;
      if (!header.has_settings()) *made.mutable_settings() = old->settings();
      if (old->sha256() == made.sha256() && old->config_sha256() == made.config_sha256()) {
        *adapter = *old;  // without reading the rest
        return grpc::Status::OK;
      }
      if (!header.replace()) return Exists();
    }
  }
  files.assign(static_cast<size_t>(header.files_size()), "");
  int chunks = 0;
  int last_file = 0;
  while (reader->Read(&message)) {
    if (chunks++ == refuse_after_chunks) {
      return RichError(grpc::StatusCode::INVALID_ARGUMENT, "bad tensor", "files[1]", "BAD_TENSOR",
                       0);
    }
    const v1::UploadChunk& chunk = message.chunk();
    std::string& file = files.at(static_cast<size_t>(chunk.file_index()));
    in_order = in_order && chunk.file_index() >= last_file &&
               chunk.offset() == static_cast<int64_t>(file.size());
    last_file = chunk.file_index();
    file += chunk.data();
    chunk_bytes.push_back(chunk.data().size());
  }
  const std::lock_guard lock(mutex_);
  *adapter = *Put(name, made);
  changes_.push_back("UploadAdapter " + name);
  return grpc::Status::OK;
}

grpc::Status FakeAdapters::GetAdapter(grpc::ServerContext* context,
                                      const v1::GetAdapterRequest* request, v1::Adapter* adapter) {
  const std::lock_guard lock(mutex_);
  const v1::Adapter* found = Lookup(*context, request->name());
  if (found == nullptr) return NotFound();
  *adapter = *found;
  return grpc::Status::OK;
}

grpc::Status FakeAdapters::ListAdapters(grpc::ServerContext*,
                                        const v1::ListAdaptersRequest* request,
                                        v1::ListAdaptersResponse* response) {
  if (before_list) {
    if (const grpc::Status status = before_list(); !status.ok()) return status;
  }
  const std::lock_guard lock(mutex_);
  std::vector<const v1::Adapter*> chosen;
  for (const v1::Adapter& adapter : adapters) {
    if (HasLabels(adapter, request->labels())) chosen.push_back(&adapter);
  }
  const size_t begin = request->page_token().empty() ? 0 : std::stoul(request->page_token());
  const size_t end = std::min(chosen.size(), begin + static_cast<size_t>(page));
  for (size_t i = begin; i < end; ++i) *response->add_adapters() = *chosen[i];
  if (end < chosen.size()) response->set_next_page_token(std::to_string(end));
  return grpc::Status::OK;
}

grpc::Status FakeAdapters::UpdateAdapter(grpc::ServerContext* context,
                                         const v1::UpdateAdapterRequest* request,
                                         v1::Adapter* adapter) {
  if (const grpc::Status status = Begin("UpdateAdapter"); !status.ok()) return status;
  const std::lock_guard lock(mutex_);
  v1::Adapter* found = Lookup(*context, request->name());
  if (found == nullptr) return NotFound();
  if (const grpc::Status s = CheckEtag(*found, request->etag()); !s.ok()) return s;
  v1::AdapterSettings* settings = found->mutable_settings();
  const auto& paths = request->update_mask().paths();
  const auto takes = [&paths](const char* path) {
    return paths.empty() || std::find(paths.begin(), paths.end(), path) != paths.end();
  };
  if (takes("labels")) *settings->mutable_labels() = request->settings().labels();
  if (takes("description")) settings->set_description(request->settings().description());
  if (takes("pinned")) settings->set_pinned(request->settings().pinned());
  if (takes("aliases")) *settings->mutable_aliases() = request->settings().aliases();
  NewEtag(found);
  *adapter = *found;
  changes_.push_back("UpdateAdapter " + found->name());
  return grpc::Status::OK;
}

grpc::Status FakeAdapters::ListAdapterVersions(grpc::ServerContext* context,
                                               const v1::ListAdapterVersionsRequest* request,
                                               v1::ListAdapterVersionsResponse* response) {
  const std::lock_guard lock(mutex_);
  const v1::Adapter* found = Lookup(*context, request->name());
  if (found == nullptr) return NotFound();
  *response->add_versions() = *found;
  const auto& old = versions_[found->name()];
  for (auto it = old.rbegin(); it != old.rend(); ++it) *response->add_versions() = *it;
  return grpc::Status::OK;
}

grpc::Status FakeAdapters::RollbackAdapter(grpc::ServerContext* context,
                                           const v1::RollbackAdapterRequest* request,
                                           v1::Adapter* adapter) {
  if (const grpc::Status status = Begin("RollbackAdapter"); !status.ok()) return status;
  const std::lock_guard lock(mutex_);
  const v1::Adapter* found = Lookup(*context, request->name());
  if (found == nullptr) return NotFound();
  if (const grpc::Status s = CheckEtag(*found, request->etag()); !s.ok()) return s;
  const std::string name = found->name();
  const auto& old = versions_[name];
  const auto it = std::find_if(old.rbegin(), old.rend(), [request](const v1::Adapter& a) {
    return request->version() == 0 || a.version() == request->version();
  });
  if (it == old.rend()) {
    return RichError(grpc::StatusCode::NOT_FOUND, "no such version", "version", "VERSION_NOT_FOUND",
                     0);
  }
  v1::Adapter made = *it;
  made.set_origin_version(it->version());
  *made.mutable_settings() = found->settings();
  *adapter = *Put(name, made);
  changes_.push_back("RollbackAdapter " + name);
  return grpc::Status::OK;
}

grpc::Status FakeAdapters::DeleteAdapter(grpc::ServerContext* context,
                                         const v1::DeleteAdapterRequest* request,
                                         google::protobuf::Empty*) {
  if (const grpc::Status status = Begin("DeleteAdapter"); !status.ok()) return status;
  const std::lock_guard lock(mutex_);
  const v1::Adapter* found = Lookup(*context, request->name());
  if (found == nullptr) return request->allow_missing() ? grpc::Status::OK : NotFound();
  if (const grpc::Status s = CheckEtag(*found, request->etag()); !s.ok()) return s;
  const std::string name = found->name();
  std::erase_if(adapters, [&name](const v1::Adapter& a) { return a.name() == name; });
  changes_.push_back("DeleteAdapter " + name);
  return grpc::Status::OK;
}

grpc::Status FakeAdapters::WatchAdapters(grpc::ServerContext* context,
                                         const v1::WatchAdaptersRequest* request,
                                         grpc::ServerWriter<v1::WatchAdaptersResponse>* writer) {
  watched = *request;
  for (const v1::WatchAdaptersResponse& event : events) writer->Write(event);
  if (!watch_end.ok()) return watch_end;
  while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return grpc::Status::CANCELLED;
}

}  // namespace lorad
