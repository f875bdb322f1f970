// UploadAdapter: hashes the files, then streams them in order, in chunks.
#include <fmt/format.h>
#include <openssl/evp.h>

#include <filesystem>
#include <fstream>
#include <string_view>

#include "client/client.h"
#include "client/grpc_call.h"

namespace lorad {
namespace {

constexpr size_t kChunkBytes = 1 << 20;  // the protocol's limit
constexpr std::string_view kFiles[] = {"adapter_config.json", "adapter_model.safetensors"};

struct LocalFile {
  std::string path;
  v1::UploadFile description;
};

// Calls `take` with consecutive pieces of at most kChunkBytes until it returns false. The bytes
// read.
absl::StatusOr<int64_t> ForEachChunk(const std::string& path,
                                     const std::function<bool(std::string_view)>& take) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::NotFoundError(fmt::format("cannot read {}", path));
  std::string buffer(kChunkBytes, '\0');
  int64_t total = 0;
  while (in) {
    in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    const auto n = static_cast<size_t>(in.gcount());
    if (n == 0) break;
    total += static_cast<int64_t>(n);
    if (!take(std::string_view(buffer.data(), n))) return total;
  }
  if (in.bad()) return absl::DataLossError(fmt::format("error while reading {}", path));
  return total;
}

absl::StatusOr<LocalFile> Describe(const std::string& directory, std::string_view name) {
  LocalFile file{.path = (std::filesystem::path(directory) / name).string(), .description = {}};
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> hash(EVP_MD_CTX_new(),
                                                                     &EVP_MD_CTX_free);
  EVP_DigestInit_ex(hash.get(), EVP_sha256(), nullptr);
  const auto bytes = ForEachChunk(file.path, [&hash](std::string_view data) {
    EVP_DigestUpdate(hash.get(), data.data(), data.size());
    return true;
  });
  if (!bytes.ok()) return bytes.status();
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int digest_bytes = 0;
  EVP_DigestFinal_ex(hash.get(), digest, &digest_bytes);
  std::string hex;
  for (unsigned int i = 0; i < digest_bytes; ++i) hex += fmt::format("{:02x}", digest[i]);
  file.description.set_name(std::string(name));
  file.description.set_size_bytes(*bytes);
  file.description.set_sha256(hex);
  return file;
}

class Sender {
 public:
  Sender(grpc::ClientWriter<v1::UploadAdapterRequest>* writer, int64_t total_bytes,
         const std::function<void(int64_t, int64_t)>& on_progress)
      : writer_(writer), total_bytes_(total_bytes), on_progress_(on_progress) {}

  // False: the server has ended the stream, its status says why.
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
  std::vector<LocalFile> files;
  int64_t total_bytes = 0;
  for (const std::string_view name : kFiles) {
    auto file = Describe(upload.directory, name);
    if (!file.ok()) return file.status();
    total_bytes += file->description.size_bytes();
    *header.add_files() = file->description;
    files.push_back(*std::move(file));
  }

  grpc::ClientContext context;
  SetDeadline(options, &context);
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
