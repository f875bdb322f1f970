#include "memory/store_manifest.h"

#include <fmt/format.h>

#include <chrono>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "memory/base/error_detail.h"
#include "memory/sha256.h"

namespace lorad {
namespace {

using nlohmann::json;

constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kMaxFileBytes = int64_t{1} << 50;  // sums of sizes cannot overflow

// The member `name` of `object` if it is an integer from `least` to `most`.
std::optional<int64_t> IntegerFromJson(const json& object, std::string_view name, int64_t least,
                                       int64_t most) {
  const auto member = object.find(std::string(name));
  if (member == object.end() || !member->is_number_integer()) return std::nullopt;
  if (member->is_number_unsigned() && member->get<uint64_t>() > static_cast<uint64_t>(kMax)) {
    return std::nullopt;
  }
  const auto number = member->get<int64_t>();
  return number >= least && number <= most ? std::optional(number) : std::nullopt;
}

// The member `name` of `object` if it is a string of at most `max_bytes`.
std::optional<std::string> TextFromJson(const json& object, std::string_view name,
                                        size_t max_bytes) {
  const auto member = object.find(std::string(name));
  if (member == object.end() || !member->is_string()) return std::nullopt;
  const auto& text = member->get_ref<const std::string&>();
  return text.size() <= max_bytes ? std::optional(text) : std::nullopt;
}

json FileToJson(const StoredFile& file) { return {{"bytes", file.bytes}, {"sha256", file.sha256}}; }

std::optional<StoredFile> FileFromJson(const json& files, std::string_view name) {
  const auto file = files.find(std::string(name));
  if (file == files.end() || !file->is_object()) return std::nullopt;
  const std::optional<int64_t> bytes = IntegerFromJson(*file, "bytes", 1, kMaxFileBytes);
  std::optional<std::string> sha256 = TextFromJson(*file, "sha256", 64);
  if (!bytes || !sha256 || !IsSha256(*sha256)) return std::nullopt;  // it names a file in blobs/
  return StoredFile{.bytes = *bytes, .sha256 = *std::move(sha256)};
}

}  // namespace

bool IsUtf8(std::string_view text) {
  try {
    (void)json(text).dump();
    return true;
  } catch (const json::exception&) {
    return false;
  }
}

std::string ToManifest(const Manifest& manifest) {
  const StoredVersion& version = manifest.version;
  const auto since_epoch = version.create_time.time_since_epoch();
  const json text = {
      {"id", version.id},
      {"version", version.version},
      {"origin_version", version.origin_version},
      {"create_time_ns", std::chrono::duration_cast<std::chrono::nanoseconds>(since_epoch).count()},
      {"files",
       {{kAdapterConfigFile, FileToJson(version.config)},
        {kAdapterWeightsFile, FileToJson(version.weights)}}},
      {"facts", version.facts},
      {"settings", manifest.settings},
      {"revision", manifest.revision}};
  return text.dump(2) + "\n";
}

absl::StatusOr<Manifest> ParseManifest(std::string_view text, std::string_view id,
                                       int64_t version) {
  const auto damaged = [&](std::string_view problem) {
    return WithReason(
        absl::DataLossError(fmt::format("manifest of {} version {}: {}", id, version, problem)),
        "ADAPTER_CORRUPT");
  };
  const json manifest = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!manifest.is_object()) return damaged("is not a JSON object");
  if (TextFromJson(manifest, "id", kMax) != id ||
      IntegerFromJson(manifest, "version", 1, kMaxVersionNumber) != version) {
    return damaged("is of another adapter or version");
  }
  const std::optional<int64_t> time = IntegerFromJson(manifest, "create_time_ns", kMin, kMax);
  if (!time) return damaged("has no create_time_ns");
  const auto files = manifest.find("files");
  if (files == manifest.end() || !files->is_object()) return damaged("has no files");
  std::optional<StoredFile> config = FileFromJson(*files, kAdapterConfigFile);
  std::optional<StoredFile> weights = FileFromJson(*files, kAdapterWeightsFile);
  if (!config || !weights) return damaged("lacks a file");

  Manifest result;
  result.version = {.id = std::string(id),
                    .version = version,
                    .config = *std::move(config),
                    .weights = *std::move(weights),
                    .create_time = std::chrono::system_clock::time_point(
                        std::chrono::duration_cast<std::chrono::system_clock::duration>(
                            std::chrono::nanoseconds(*time)))};
  if (!manifest.contains("revision")) return result;  // of format 1
  const std::optional<int64_t> revision =
      IntegerFromJson(manifest, "revision", 1, kMaxVersionNumber);
  const std::optional<int64_t> origin = IntegerFromJson(manifest, "origin_version", 0, version - 1);
  std::optional<std::string> facts = TextFromJson(manifest, "facts", kMaxFactsBytes);
  std::optional<std::string> settings = TextFromJson(manifest, "settings", kMaxSettingsBytes);
  if (!revision || !origin) return damaged("has a bad revision or origin_version");
  if (!facts || !settings) return damaged("has no facts or settings, or too long ones");
  result.version.origin_version = *origin;
  result.version.facts = *std::move(facts);
  result.settings = *std::move(settings);
  result.revision = *revision;
  return result;
}

std::string ToSettingsFile(const SettingsRecord& record) {
  const json text = {
      {"version", record.version}, {"revision", record.revision}, {"settings", record.settings}};
  return text.dump(2) + "\n";
}

absl::StatusOr<SettingsRecord> ParseSettingsFile(std::string_view text) {
  const json file = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (file.is_object()) {
    const std::optional<int64_t> version = IntegerFromJson(file, "version", 1, kMaxVersionNumber);
    const std::optional<int64_t> revision = IntegerFromJson(file, "revision", 1, kMaxVersionNumber);
    std::optional<std::string> settings = TextFromJson(file, "settings", kMaxSettingsBytes);
    if (version && revision && settings) {
      return SettingsRecord{
          .version = *version, .revision = *revision, .settings = *std::move(settings)};
    }
  }
  return WithReason(absl::DataLossError("holds no settings"), "STORE_CORRUPT");
}

}  // namespace lorad
