#include "memory/stored_version.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "memory/base/error_detail.h"

namespace lorad {
namespace {

using nlohmann::json;

constexpr size_t kMaxIdLength = 128;

bool IsLowerOrDigit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

json FileToJson(const StoredFile& file) { return {{"bytes", file.bytes}, {"sha256", file.sha256}}; }

std::optional<StoredFile> FileFromJson(const json& files, std::string_view name) {
  const auto file = files.find(std::string(name));
  if (file == files.end() || !file->is_object()) return std::nullopt;
  const auto bytes = file->find("bytes");
  const auto sha256 = file->find("sha256");
  if (bytes == file->end() || !bytes->is_number_integer()) return std::nullopt;
  if (sha256 == file->end() || !sha256->is_string()) return std::nullopt;
  return StoredFile{.bytes = bytes->get<int64_t>(), .sha256 = sha256->get<std::string>()};
}

}  // namespace

absl::Status ValidateAdapterId(std::string_view id) {
  if (id.empty()) return InvalidField("adapter_id", "is required");
  if (id.size() > kMaxIdLength) {
    return InvalidField("adapter_id",
                        fmt::format("has {} characters, more than {}", id.size(), kMaxIdLength));
  }
  const bool known = std::all_of(id.begin(), id.end(), [](char c) {
    return IsLowerOrDigit(c) || c == '.' || c == '_' || c == '-';
  });
  if (!known || !IsLowerOrDigit(id[0]) || id.find("..") != std::string_view::npos) {
    return InvalidField("adapter_id",
                        "must be of a-z, 0-9, '.', '_', '-', begin with a letter or digit, and not "
                        "hold \"..\"");
  }
  return absl::OkStatus();
}

int64_t ParseVersionNumber(std::string_view text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  // The limit keeps a number that somebody planted from exhausting those after it.
  const bool in_range = error == std::errc() && number >= 1 && number <= 1'000'000'000'000'000;
  return in_range && fmt::format("{}", number) == text ? number : 0;
}

std::string ToManifest(const StoredVersion& version) {
  const auto since_epoch = version.create_time.time_since_epoch();
  const json manifest = {
      {"id", version.id},
      {"version", version.version},
      {"create_time_ns", std::chrono::duration_cast<std::chrono::nanoseconds>(since_epoch).count()},
      {"files",
       {{kAdapterConfigFile, FileToJson(version.config)},
        {kAdapterWeightsFile, FileToJson(version.weights)}}}};
  return manifest.dump(2) + "\n";
}

absl::StatusOr<StoredVersion> ParseManifest(std::string_view text, std::string_view id,
                                            int64_t version) {
  const auto damaged = [&](std::string_view problem) {
    return WithReason(
        absl::DataLossError(fmt::format("manifest of {} version {}: {}", id, version, problem)),
        "ADAPTER_CORRUPT");
  };
  const json manifest = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!manifest.is_object()) return damaged("is not a JSON object");
  const auto found_id = manifest.find("id");
  const auto found_version = manifest.find("version");
  const auto time = manifest.find("create_time_ns");
  const auto files = manifest.find("files");
  if (found_id == manifest.end() || *found_id != id || found_version == manifest.end() ||
      *found_version != version) {
    return damaged("is of another adapter or version");
  }
  if (time == manifest.end() || !time->is_number_integer()) return damaged("has no create_time_ns");
  if (files == manifest.end() || !files->is_object()) return damaged("has no files");
  std::optional<StoredFile> config = FileFromJson(*files, kAdapterConfigFile);
  std::optional<StoredFile> weights = FileFromJson(*files, kAdapterWeightsFile);
  if (!config || !weights) return damaged("lacks a file");
  return StoredVersion{.id = std::string(id),
                       .version = version,
                       .path = {},
                       .config = *std::move(config),
                       .weights = *std::move(weights),
                       .create_time = std::chrono::system_clock::time_point(
                           std::chrono::duration_cast<std::chrono::system_clock::duration>(
                               std::chrono::nanoseconds(time->get<int64_t>())))};
}

}  // namespace lorad
