#include "client/adapter_files.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <filesystem>
#include <fstream>
#include <memory>

namespace lorad {

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

absl::StatusOr<v1::UploadFile> DescribeFile(const std::string& path) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> hash(EVP_MD_CTX_new(),
                                                                     &EVP_MD_CTX_free);
  EVP_DigestInit_ex(hash.get(), EVP_sha256(), nullptr);
  const auto bytes = ForEachChunk(path, [&hash](std::string_view data) {
    EVP_DigestUpdate(hash.get(), data.data(), data.size());
    return true;
  });
  if (!bytes.ok()) return bytes.status();
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int digest_bytes = 0;
  EVP_DigestFinal_ex(hash.get(), digest, &digest_bytes);
  std::string hex;
  for (unsigned int i = 0; i < digest_bytes; ++i) hex += fmt::format("{:02x}", digest[i]);
  v1::UploadFile file;
  file.set_name(std::filesystem::path(path).filename().string());
  file.set_size_bytes(*bytes);
  file.set_sha256(hex);
  return file;
}

}  // namespace lorad
