#include "server/adapter_facts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cfloat>
#include <nlohmann/json.hpp>
#include <utility>

#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "memory/sha256.h"
#include "memory/stored_version.h"
#include "model/json.h"

namespace lorad {
namespace {

constexpr int kFactsFormat = 1;        // grows when a layout or the meaning of a field changes
constexpr size_t kMaxBaseModel = 512;  // bytes
constexpr int64_t kMaxRankOnDisk = 1 << 16;

absl::Status Damaged(std::string_view why) {
  return WithReason(
      absl::DataLossError(fmt::format("what was noted of the adapter is damaged: {}", why)),
      "ADAPTER_CORRUPT");
}

std::string CutUtf8(std::string_view text, size_t most) {
  if (text.size() > most) {
    while (most > 0 && (static_cast<uint8_t>(text[most]) & 0xc0) == 0x80) --most;
    text = text.substr(0, most);
  }
  return std::string(text);
}

absl::Status ReadRanks(const JsonValue* value, AdapterFacts* facts) {
  if (value == nullptr || value->array() == nullptr) return Damaged("\"ranks\" is not an array");
  for (const JsonValue& rank : *value->array()) {
    const std::optional<int64_t> number = rank.integer();
    if (!number.has_value() || *number < 1 || *number > facts->max_rank) {
      return Damaged("a rank is no rank");
    }
    facts->ranks.push_back(static_cast<int>(*number));
  }
  return absl::OkStatus();
}

absl::Status ReadModules(const JsonValue* value, AdapterFacts* facts) {
  if (value == nullptr || value->array() == nullptr) return Damaged("\"modules\" is not an array");
  for (const JsonValue& module : *value->array()) {
    if (module.string() == nullptr) return Damaged("a module is not a text");
    facts->target_modules.push_back(*module.string());
  }
  return absl::OkStatus();
}

}  // namespace

std::string FactsFingerprint(const ModelConfig& m, std::string_view backend, size_t page_bytes,
                             size_t ranks) {
  Sha256 hash;
  hash.Update(fmt::format("{} {} {} {} {} {} {} {} {} {} {}", kFactsFormat, m.architecture,
                          m.vocab_size, m.hidden_size, m.layers, m.heads, m.kv_heads, m.head_dim,
                          m.ffn_size, backend, page_bytes));
  if (ranks > 1) hash.Update(fmt::format(" {}", ranks));
  return hash.Finish().substr(0, 16);
}

std::string FactsToText(const AdapterFacts& facts, std::string_view fingerprint) {
  nlohmann::ordered_json json;
  json["for"] = fingerprint;
  json["pages"] = facts.pages;
  json["image_bytes"] = facts.image_bytes;
  json["rank"] = facts.max_rank;
  json["ranks"] = facts.ranks;
  json["modules"] = facts.target_modules;
  json["alpha"] = facts.alpha;
  // Nothing bounds it in the adapter's config, and it is kept in memory.
  json["base_model"] = CutUtf8(facts.base_model, kMaxBaseModel);
  return json.dump(-1, ' ', /*ensure_ascii=*/false,
                   nlohmann::ordered_json::error_handler_t::replace);
}

absl::StatusOr<AdapterFacts> FactsFromText(std::string_view text, std::string_view fingerprint) {
  if (text.empty()) return absl::FailedPreconditionError("nothing was noted of the adapter");
  const auto json = JsonValue::Parse(text, {.max_depth = 3, .max_values = 1024});
  if (!json.ok()) return Damaged(std::string(json.status().message()));
  JsonFields fields(*json);
  const std::string made_for = fields.String("for", "");
  if (fields.FinishPartial().ok() && made_for != fingerprint) {
    return absl::FailedPreconditionError(
        "what was noted of the adapter is for another model, backend or page size");
  }
  AdapterFacts facts;
  facts.pages = static_cast<uint32_t>(fields.Int("pages", 1, UINT32_MAX));
  facts.image_bytes = static_cast<uint64_t>(fields.Int("image_bytes", 1, INT64_MAX));
  facts.max_rank = static_cast<int>(fields.Int("rank", 1, kMaxRankOnDisk));
  facts.alpha = fields.Number("alpha", -DBL_MAX, DBL_MAX);
  facts.base_model = fields.String("base_model", "");
  const JsonValue* ranks = fields.Get("ranks");
  const JsonValue* modules = fields.Get("modules");
  if (const absl::Status read = fields.Finish("INVALID_FIELD"); !read.ok()) {
    return Damaged(std::string(read.message()));
  }
  LORAD_RETURN_IF_ERROR(ReadRanks(ranks, &facts));
  LORAD_RETURN_IF_ERROR(ReadModules(modules, &facts));
  return facts;
}

absl::StatusOr<AdapterFactsPtr> FactsTable::FromText(std::string_view text) {
  const std::lock_guard lock(mutex_);
  if (const auto found = facts_.find(text); found != facts_.end()) {
    if (AdapterFactsPtr facts = found->second.lock(); facts != nullptr) return facts;
  }
  LORAD_ASSIGN_OR_RETURN(AdapterFacts parsed, FactsFromText(text, fingerprint_));
  auto facts = std::make_shared<const AdapterFacts>(std::move(parsed));
  facts_.insert_or_assign(std::string(text), facts);
  if (facts_.size() >= forget_at_) ForgetUnused();
  return facts;
}

size_t FactsTable::size() const {
  const std::lock_guard lock(mutex_);
  return facts_.size();
}

void FactsTable::ForgetUnused() {
  std::erase_if(facts_, [](const auto& entry) { return entry.second.expired(); });
  forget_at_ = std::max<size_t>(64, 2 * facts_.size());
}

}  // namespace lorad
