#include "memory/staged_adapter.h"

#include <fmt/format.h>

#include <utility>

#include "memory/adapter_store.h"
#include "memory/base/check.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"

namespace lorad {

StagedAdapter::StagedAdapter(AdapterStore* store, std::filesystem::path path)
    : store_(store), path_(std::move(path)) {}

StagedAdapter::StagedAdapter(StagedAdapter&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)),
      path_(std::move(other.path_)),
      files_(std::move(other.files_)),
      failure_(std::move(other.failure_)) {}

StagedAdapter& StagedAdapter::operator=(StagedAdapter&& other) noexcept {
  if (this == &other) return *this;
  Discard();
  store_ = std::exchange(other.store_, nullptr);
  path_ = std::move(other.path_);
  files_ = std::move(other.files_);
  failure_ = std::move(other.failure_);
  return *this;
}

StagedAdapter::~StagedAdapter() { Discard(); }

void StagedAdapter::Discard() {
  if (store_ == nullptr) return;
  for (File& file : files_) file.fd.Close();
  std::exchange(store_, nullptr)->Discard(*this);
}

absl::Status StagedAdapter::CheckChunk(int file, int64_t offset, std::string_view bytes) const {
  if (file < 0 || file >= static_cast<int>(files_.size())) {
    return InvalidField("file_index", fmt::format("{} is not a declared file", file));
  }
  const File& to = files_[static_cast<size_t>(file)];
  if (offset != to.written) {
    return InvalidField(
        "offset", fmt::format("{} in {}, where byte {} comes next", offset, to.name, to.written));
  }
  if (static_cast<uint64_t>(to.bytes - to.written) < bytes.size()) {
    return InvalidField("data", fmt::format("{} gets more than the {} bytes that were declared",
                                            to.name, to.bytes));
  }
  return absl::OkStatus();
}

absl::Status StagedAdapter::Write(int file, int64_t offset, std::string_view bytes) {
  LORAD_CHECK(store_ != nullptr);
  if (failure_.ok()) failure_ = CheckChunk(file, offset, bytes);
  if (failure_.ok()) failure_ = Append(&files_[static_cast<size_t>(file)], bytes);
  return failure_;
}

absl::Status StagedAdapter::Append(File* file, std::string_view bytes) {
  if (bytes.empty()) return absl::OkStatus();
  LORAD_RETURN_IF_ERROR(store_->disk_.Write(file->fd, path_ / file->name, bytes));
  file->hash.Update(bytes);
  file->written += static_cast<int64_t>(bytes.size());
  store_->NoteWritten(static_cast<int64_t>(bytes.size()));
  if (file->written < file->bytes) return absl::OkStatus();
  std::string sha256 = file->hash.Finish();
  if (!file->sha256.empty() && file->sha256 != sha256) {
    return WithReason(absl::DataLossError(fmt::format("{} arrived with sha256 {}, declared {}",
                                                      file->name, sha256, file->sha256)),
                      "CHECKSUM_MISMATCH");
  }
  file->sha256 = std::move(sha256);
  return absl::OkStatus();
}

absl::Status StagedAdapter::CheckComplete() const {
  LORAD_CHECK(store_ != nullptr);
  if (!failure_.ok()) return failure_;
  for (const File& file : files_) {
    if (file.written < file.bytes) {
      return InvalidField("data",
                          fmt::format("{} has {} of {} bytes", file.name, file.written, file.bytes),
                          "UPLOAD_INCOMPLETE");
    }
  }
  return absl::OkStatus();
}

absl::Status StagedAdapter::Sync() {
  for (File& file : files_) {
    LORAD_RETURN_IF_ERROR(store_->disk_.Sync(file.fd, path_ / file.name));
    file.fd.Close();
  }
  return absl::OkStatus();
}

StoredFile StagedAdapter::Arrived(std::string_view name) const {
  const File& file = files_[files_[0].name == name ? 0 : 1];
  LORAD_CHECK(file.name == name);
  return {.bytes = file.bytes, .sha256 = file.sha256};
}

int64_t StagedAdapter::unwritten_bytes() const {
  return declared_bytes() - files_[0].written - files_[1].written;
}

}  // namespace lorad
