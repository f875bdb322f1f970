// UploadAdapter: hashes the files, then streams them in order, in chunks.
#include <fmt/format.h>

#include <filesystem>
#include <string_view>
#include <vector>

#include "client/adapter_files.h"
#include "client/client.h"
#include "client/grpc_call.h"

namespace lorad {
namespace {

struct LocalFile {
  std::string path;
  v1::UploadFile description;
};

class Sender {
 public:
  Sender(grpc::ClientWriter<v1::UploadAdapterRequest>* writer, int64_t total_bytes,
         const std::function<void(int64_t, int64_t)>& on_progress)
      : writer_(writer), total_bytes_(total_bytes), on_progress_(on_progress) {}

  // False: the server has ended the stream. Its status says why; OK: it has these files already.
  bool SendHeader(const v1::UploadHeader& header) {
    *message_.mutable_header() = header;
    return writer_->Write(message_);
  }
  // OK with *open false: as above. An error: the file cannot be read or has changed.
  absl::Status SendFile(int index, const LocalFile& file, bool* open) {
    int64_t offset = 0;
    const auto bytes = ForEachChunk(file.path, [&](std::string_view data) {
      v1::UploadChunk* chunk = message_.mutable_chunk();
      chunk->set_file_index(index);
      chunk->set_offset(offset);
      chunk->set_data(data.data(), data.size());
      offset += static_cast<int64_t>(data.size());
      sent_bytes_ += static_cast<int64_t>(data.size());
      *open = writer_->Write(message_);
      if (*open && on_progress_) on_progress_(sent_bytes_, total_bytes_);
      return *open;
    });
    if (!bytes.ok()) return bytes.status();
    if (*open && *bytes != file.description.size_bytes()) {
      return absl::AbortedError(fmt::format("{} changed while it was sent", file.path));
    }
    return absl::OkStatus();
  }

 private:
  grpc::ClientWriter<v1::UploadAdapterRequest>* const writer_;
  const int64_t total_bytes_;
  const std::function<void(int64_t, int64_t)>& on_progress_;
  v1::UploadAdapterRequest message_;
  int64_t sent_bytes_ = 0;
};

}  // namespace

absl::StatusOr<v1::Adapter> Client::UploadAdapter(
    const AdapterUpload& upload, const std::function<void(int64_t, int64_t)>& on_progress,
    const CallOptions& options) {
  v1::UploadHeader header;
  header.set_adapter_id(upload.adapter_id);
  header.set_replace(upload.replace);
  header.set_preload(upload.preload);
  header.set_etag(upload.etag);
  if (upload.settings.has_value()) *header.mutable_settings() = *upload.settings;
  std::vector<LocalFile> files;
  int64_t total_bytes = 0;
  for (const std::string_view name : kAdapterFiles) {
    const std::string path = (std::filesystem::path(upload.directory) / name).string();
    const auto description = DescribeFile(path);
    if (!description.ok()) return description.status();
    total_bytes += description->size_bytes();
    *header.add_files() = *description;
    files.push_back({path, *description});
  }

  grpc::ClientContext context;
  Prepare(options, connections_->tenant, &context);
  v1::Adapter adapter;
  const auto writer = connections_->adapters->UploadAdapter(&context, &adapter);
  Sender sender(writer.get(), total_bytes, on_progress);
  bool open = sender.SendHeader(header);
  for (size_t i = 0; open && i < files.size(); ++i) {
    const absl::Status status = sender.SendFile(static_cast<int>(i), files[i], &open);
    if (!status.ok()) {
      context.TryCancel();
      writer->Finish();
      return status;
    }
  }
  if (open) writer->WritesDone();
  if (const grpc::Status status = writer->Finish(); !status.ok()) return FromGrpc(status);
  return adapter;
}

}  // namespace lorad
